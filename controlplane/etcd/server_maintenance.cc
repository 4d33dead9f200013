// The services Maintenance and Cluster.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/fd.h"
#include "base/log.h"
#include "controlplane/etcd/server_core.h"
#include "controlplane/etcd/snapshot.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;
using rpc::CallPtr;

constexpr std::size_t kBlob = 32u << 10;

// Sends a snapshot file piece by piece, its checksum last and alone, as etcd does. The file is made first and removed at once, so it
// goes away with this object whatever happens. The next piece is read when the one before has left.
class SnapshotStream final : public rpc::StreamHandler, public std::enable_shared_from_this<SnapshotStream> {
 public:
  SnapshotStream(ServerCore& core, CallPtr call) : core_(core), call_(std::move(call)) {}
  void on_message(std::string_view) override {
    if (auto ok = core_.admin(*call_); !ok) return call_->finish(to_status(ok.error()));
    if (std::exchange(begun_, true)) return;
    std::thread([self = shared_from_this()] { self->begin(); }).detach();  // it may take seconds
  }
  void on_drained() override { next(); }
  void on_gone() override {
    std::lock_guard lock(mutex_);
    over_ = true;
  }

 private:
  void begin() {
    static std::atomic<unsigned> counter{0};
    const auto path = fmt::format("{}/snapshot-{}-{}.tmp", core_.store.directory(), ::getpid(), ++counter);
    auto info = write_snapshot(core_.store, path);
    Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const int opened = errno;
    ::unlink(path.c_str());
    if (!info) return call_->finish(to_status(info.error()));
    if (!file) return call_->finish(to_status(errno_error(opened, "open snapshot")));
    {
      std::lock_guard lock(mutex_);
      file_ = std::move(file);
      left_ = info->bytes;
    }
    next();
  }
  void next() {
    std::lock_guard lock(mutex_);
    if (over_) return;
    if (summed_) return call_->finish({});
    pb::SnapshotResponse reply;
    core_.fill(reply.mutable_header());
    reply.set_version(kEmulatedVersion);
    auto& blob = *reply.mutable_blob();
    summed_ = left_ == 0;
    blob.resize(summed_ ? kSnapshotChecksumBytes : std::min<std::uint64_t>(kBlob, left_));
    const auto n = ::pread(file_.get(), blob.data(), blob.size(), static_cast<off_t>(at_));
    if (n <= 0) return call_->finish(to_status(errno_error(errno, "read snapshot")));
    blob.resize(static_cast<std::size_t>(n));
    at_ += blob.size();
    if (!summed_) left_ -= blob.size();
    reply.set_remaining_bytes(left_);
    call_->send(reply);
  }

  ServerCore& core_;
  const CallPtr call_;
  bool begun_ = false;
  std::mutex mutex_;
  Fd file_;
  std::uint64_t at_ = 0, left_ = 0;
  bool summed_ = false, over_ = false;
};

constexpr pb::AlarmType kAlarms[] = {pb::NOSPACE, pb::CORRUPT};
const char* alarm_name(pb::AlarmType kind) { return kind == pb::NOSPACE ? kAlarmNoSpace : kAlarmCorrupt; }

void add_alarm(ServerCore& core, pb::AlarmType kind, pb::AlarmResponse& reply) {
  auto* alarm = reply.add_alarms();
  alarm->set_memberid(core.member_id);
  alarm->set_alarm(kind);
}

void alarm(ServerCore& core, const CallPtr& call, const pb::AlarmRequest& m) {
  pb::AlarmResponse reply;
  const bool get = m.action() == pb::AlarmRequest::GET, on = m.action() == pb::AlarmRequest::ACTIVATE;
  std::vector<SettingEntry> entries;
  for (const auto kind : kAlarms) {
    const bool up = !core.store.settings(alarm_name(kind)).empty();
    const bool meant = m.alarm() == kind || (m.alarm() == pb::NONE && !on);
    if (!meant || (get ? !up : up == on)) continue;
    if (!get) entries.push_back({alarm_name(kind), on ? std::optional<std::string>("") : std::nullopt});
    add_alarm(core, kind, reply);
  }
  if (entries.empty()) return answer(core, call, reply, {});
  core.store.set_settings(entries, [&core, call, reply](Result<Revision> r) mutable {
    answer(core, call, reply, r ? Result<>() : Result<>(fail(r.error())));
  });
}

void status(ServerCore& core, const CallPtr& call, const pb::StatusRequest&) {
  const auto s = core.store.status();
  pb::StatusResponse reply;
  core.fill(reply.mutable_header(), s.revision);
  reply.set_version(kEmulatedVersion);
  reply.set_storageversion("3.5.0");
  reply.set_dbsize(static_cast<std::int64_t>(s.file_bytes));
  reply.set_dbsizeinuse(static_cast<std::int64_t>(s.used_bytes));
  reply.set_dbsizequota(static_cast<std::int64_t>(s.quota_bytes));
  reply.set_leader(core.member_id);
  reply.set_raftindex(s.sequence);
  reply.set_raftappliedindex(s.sequence);
  reply.set_raftterm(core.term);
  if (s.no_space) reply.add_errors(fmt::format("memberID:{} alarm:NOSPACE ", core.member_id));
  if (s.corrupt) reply.add_errors(fmt::format("memberID:{} alarm:CORRUPT ", core.member_id));
  if (!s.failure.empty()) reply.add_errors(s.failure);
  answer(core, call, reply, {});
}

// For what an administrator may ask and takes its time: `job` fills the reply on a thread of its own.
template <typename Request, typename Reply, typename Job>
rpc::Method in_background(ServerCore& core, Job job) {
  return rpc::unary<Request>([&core, job](const CallPtr& call, Request m) {
    if (auto ok = core.admin(*call); !ok) return call->finish(to_status(ok.error()));
    std::thread([&core, call, job, m = std::move(m)] {
      Reply reply;
      const auto done = job(m, reply);
      answer(core, call, reply, done);
    }).detach();
  });
}

// What needs no more than a look: `look` fills the reply or says what is wrong.
template <typename Request, typename Reply, typename Look>
rpc::Method at_once(ServerCore& core, Look look) {
  return rpc::unary<Request>([&core, look](const CallPtr& call, const Request& m) {
    Reply reply;
    const Result<> done = look(m, reply);
    answer(core, call, reply, done);
  });
}

Result<> failed_precondition(const char* text) { return fail(errors::make(ErrorCode::failed_precondition, text)); }
Result<> unknown_member() { return fail(errors::make(ErrorCode::not_found, "member not found")); }
Result<> single_member() {
  return fail(ErrorCode::failed_precondition, "etcdserver: the embedded store has one member; use an etcd cluster for several");
}

}  // namespace

void add_maintenance_service(ServerCore& core, rpc::Methods& methods) {
  const std::string service = "/etcdserverpb.Maintenance/";
  auto* const c = &core;
  methods.add(service + "Alarm", rpc::unary<pb::AlarmRequest>([c](const CallPtr& call, const pb::AlarmRequest& m) { alarm(*c, call, m); }));
  methods.add(service + "Status", rpc::unary<pb::StatusRequest>([c](const CallPtr& call, const pb::StatusRequest& m) { status(*c, call, m); }));
  // Freed pages are used again while the store runs, so there is nothing to stop the world for; what is in memory is
  // moved to the log table.
  methods.add(service + "Defragment", in_background<pb::DefragmentRequest, pb::DefragmentResponse>(core, [c](const auto&, auto&) { return c->store.flush(); }));
  methods.add(service + "Hash", in_background<pb::HashRequest, pb::HashResponse>(core, [c](const auto&, auto& reply) -> Result<> {
    FL_TRY(const auto h, hash_kv(c->store, 0));
    reply.set_hash(h.hash);
    return {};
  }));
  methods.add(service + "HashKV", in_background<pb::HashKVRequest, pb::HashKVResponse>(core, [c](const auto& m, auto& reply) -> Result<> {
    FL_TRY(const auto h, hash_kv(c->store, m.revision()));
    reply.set_hash(h.hash);
    reply.set_compact_revision(h.compacted == 0 ? -1 : h.compacted);
    reply.set_hash_revision(h.revision);
    return {};
  }));
  methods.add(service + "MoveLeader", at_once<pb::MoveLeaderRequest, pb::MoveLeaderResponse>(core, [c](const auto& m, auto&) {
    return m.targetid() == c->member_id ? Result<>() : failed_precondition("bad leader transferee");
  }));
  methods.add(service + "Downgrade", at_once<pb::DowngradeRequest, pb::DowngradeResponse>(core, [](const auto&, auto&) { return failed_precondition("not capable"); }));
  rpc::Method snapshot;
  snapshot.stream = [c](const CallPtr& call) { return std::make_shared<SnapshotStream>(*c, call); };
  methods.add(service + "Snapshot", std::move(snapshot));
}

// One member: itself.
void add_cluster_service(ServerCore& core, rpc::Methods& methods) {
  const std::string service = "/etcdserverpb.Cluster/";
  auto* const c = &core;
  methods.add(service + "MemberList", at_once<pb::MemberListRequest, pb::MemberListResponse>(core, [c](const auto&, auto& reply) -> Result<> {
    auto* m = reply.add_members();
    m->set_id(c->member_id);
    m->set_name(c->options.name);
    for (const auto& url : c->options.advertise_urls) m->add_clienturls(url);
    return {};
  }));
  methods.add(service + "MemberAdd", at_once<pb::MemberAddRequest, pb::MemberAddResponse>(core, [](const auto&, auto&) { return single_member(); }));
  const auto known = [c](const auto& m, auto&) { return m.id() == c->member_id ? single_member() : unknown_member(); };
  methods.add(service + "MemberRemove", at_once<pb::MemberRemoveRequest, pb::MemberRemoveResponse>(core, known));
  methods.add(service + "MemberUpdate", at_once<pb::MemberUpdateRequest, pb::MemberUpdateResponse>(core, known));
  methods.add(service + "MemberPromote", at_once<pb::MemberPromoteRequest, pb::MemberPromoteResponse>(core, [c](const auto& m, auto&) {
    return m.id() == c->member_id ? failed_precondition("can only promote a learner member") : unknown_member();
  }));
}

}  // namespace fairlead::etcd
