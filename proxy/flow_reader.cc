#include "proxy/flow_reader.h"

#include <cerrno>

#include "base/log.h"
#include "netlink/sysctl.h"

namespace fairlead::proxy {

using std::chrono::steady_clock;

namespace {
constexpr std::chrono::milliseconds kWait{200};  // how late stopping is noticed
constexpr std::chrono::milliseconds kPauseAfterError{500};
constexpr int kListingShare = 25;

Result<> expect_sysctl(const std::string& key, bool (*good)(const std::string&), std::string_view wants) {
  const auto value = netlink::read_sysctl(key);
  if (!value) return fail(ErrorCode::failed_precondition, "{} (no connection tracking in this kernel?)", value.error().message);
  if (!good(*value)) return fail(ErrorCode::failed_precondition, "{} is {} and must be {}", key, *value, wants);
  return {};
}
}  // namespace

Result<std::unique_ptr<FlowReader>> FlowReader::start(std::chrono::milliseconds interval) {
  FL_CHECK(expect_sysctl("net/netfilter/nf_conntrack_acct", [](const std::string& v) { return v == "1"; }, "1"));
  FL_CHECK(expect_sysctl("net/netfilter/nf_conntrack_events", [](const std::string& v) { return v != "0"; }, "1 or 2"));
  FL_TRY(auto ends, netlink::FlowEnds::open());
  FL_TRY(auto table, netlink::Conntrack::open());
  return std::unique_ptr<FlowReader>(new FlowReader(std::move(ends), std::move(table), interval));
}

FlowReader::FlowReader(netlink::FlowEnds ends, netlink::Conntrack table, std::chrono::milliseconds interval)
    : ends_(std::move(ends)), table_(std::move(table)), interval_(interval), thread_([this] { run(); }) {}

FlowReader::~FlowReader() {
  stopping_ = true;
  thread_.join();
}

void FlowReader::plan(const PlanDelta& delta) {
  const std::lock_guard lock(mutex_);
  account_.plan(delta);
}

void FlowReader::append_to(std::vector<Traffic>& out) const {
  const std::lock_guard lock(mutex_);
  account_.append_to(out);
}

// A listing comes before the ends that wait in the socket: whatever it shows is told of later, so nothing is counted twice.
void FlowReader::run() {
  while (!stopping_) {
    bool due = false;
    {
      const std::lock_guard lock(mutex_);
      due = account_.wants_listing() || (!account_.idle() && steady_clock::now() >= next_listing_);
    }
    if (due) list();
    receive();
  }
}

void FlowReader::receive() {
  const auto came = ends_.receive(kWait, [this](const netlink::Flow& f) {
    const std::lock_guard lock(mutex_);
    account_.ended(f);
  });
  if (came) return;
  if (came.error().sys_errno == ENOBUFS) {
    if (losses_++ == 0) log::warn("connections end faster than their counters can be read: some bytes and packets are not counted");
    return;
  }
  tell("ends of connections", came.error());
}

void FlowReader::list() {
  const auto begin = steady_clock::now();
  for (const Family family : {Family::v4, Family::v6}) {
    const auto done = table_.list_translated(family, [this](const netlink::Flow& f) {
      const std::lock_guard lock(mutex_);
      account_.listed(f);
    });
    if (done) continue;
    next_listing_ = steady_clock::now() + interval_;
    return tell("connections", done.error());
  }
  {
    const std::lock_guard lock(mutex_);
    account_.end_listing();
  }
  ++listings_;
  complained_ = false;
  const auto end = steady_clock::now();
  next_listing_ = end + std::max<steady_clock::duration>(interval_, (end - begin) * (kListingShare - 1));
}

void FlowReader::tell(std::string_view what, const Error& e) {
  if (!std::exchange(complained_, true)) log::warn("packets and bytes are counted late: read {}: {}", what, e.message);
  std::this_thread::sleep_for(kPauseAfterError);
}

}  // namespace fairlead::proxy
