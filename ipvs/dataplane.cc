#include "ipvs/dataplane.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>

#include "base/log.h"
#include "ipvs/host.h"
#include "ipvs/kernel_fake.h"
#include "ipvs/kernel_netlink.h"
#include "ipvs/text.h"
#include "ipvs/trace.h"

namespace fairlead::ipvs {
namespace {

using proxy::ApplyReport;
using proxy::Decision;
using proxy::Drift;
using proxy::PlanDelta;

// Shows the real kernel, and notes what would be written instead of writing it. Real servers that drain are no drift.
class DryRun final : public Kernel {
 public:
  explicit DryRun(Kernel& real) : real_(real) {}
  Result<State> list(Family family) override {
    FL_TRY(auto state, real_.list(family));
    for (auto& [key, server] : state.servers) keep_draining(server.real);
    return state;
  }
  Result<std::vector<RealServer>> real_servers(const ServerKey& key) override {
    FL_TRY(auto real, real_.real_servers(key));
    keep_draining(real);
    return real;
  }
  Result<CommitReport> commit(Family, const std::vector<Op>& ops) override {
    for (const auto& op : ops) steps.push_back(to_text(op));
    return CommitReport{};
  }
  Result<std::vector<Counters>> counters(Family) override { return std::vector<Counters>{}; }
  Result<bool> has_scheduler(const std::string& name) override { return real_.has_scheduler(name); }
  Result<> watch(std::function<void()>) override { return {}; }
  std::vector<Drift> steps;

 private:
  static void keep_draining(std::vector<RealServer>& real) {
    for (auto& r : real)
      if (r.weight == 0) r.connections = std::max<std::uint64_t>(r.connections, 1);
  }
  Kernel& real_;
};

class IpvsDataplane final : public proxy::Dataplane {
 public:
  IpvsDataplane(Kernel& kernel, const Options& options)
      : kernel_(kernel), options_(options), syncs_{FamilySync(Family::v4, kernel, options), FamilySync(Family::v6, kernel, options)} {}
  IpvsDataplane(std::unique_ptr<Kernel> kernel, const Options& options) : IpvsDataplane(*kernel, options) { owned_ = std::move(kernel); }

  ~IpvsDataplane() override {
    if (watching_) [[maybe_unused]] const auto r = kernel_.watch({});
  }

  std::string_view name() const override { return "ipvs"; }

  Result<ApplyReport> apply(const PlanDelta& delta) override {
    const auto start = std::chrono::steady_clock::now();
    ApplyReport report;
    std::optional<Error> first;
    const bool distrust = foreign_.exchange(false) || delta.relist;
    for (std::size_t i = 0; i < syncs_.size(); ++i) {
      auto& s = syncs_[i];
      if (distrust) s.distrust();
      auto done = delta.global->enabled(s.family()) ? s.apply(delta, report) : drop_family(i);
      if (!done && !first) first = std::move(done).error().with("{}", fairlead::to_string(s.family()));
    }
    report.services = std::max(report.services, delta.services.size());
    report.duration = std::chrono::steady_clock::now() - start;
    if (first) return fail(std::move(*first));
    if (handler_ && !watching_) start_watching();
    return report;
  }

  Result<> remove_all_owned() override {
    bool empty = true, link = false;
    for (auto& s : syncs_) {
      FL_CHECK_CTX(s.remove(), "remove what is there for {}", fairlead::to_string(s.family()));
      FL_TRY(const auto left, kernel_.list(s.family()));
      empty = empty && left.bound.empty();
      link = link || left.link;
    }
    // Addresses of others keep the link.
    if (link && empty) FL_CHECK(kernel_.commit(Family::v4, {op::DeleteLink{}}));
    return {};
  }

  Result<std::vector<Drift>> verify(const proxy::Plan& plan) override {
    DryRun dry(kernel_);
    for (const auto& s : syncs_) {
      if (!plan.global->enabled(s.family())) continue;
      FamilySync sync(s.family(), dry, options_);
      ApplyReport report;
      FL_CHECK(sync.apply(plan.full_delta(), report));
    }
    return std::move(dry.steps);
  }

  Result<Decision> trace(const proxy::Packet& packet) override {
    FL_TRY(const auto found, kernel_.list(packet.destination.family()));
    const auto nat = found.rules.find("nat");
    if (!found.link || nat == found.rules.end() || nat->second.chains.empty())
      return fail(ErrorCode::not_found, "no rules of the service proxy for {} in the kernel", fairlead::to_string(packet.destination.family()));
    return ipvs::trace(found, packet);
  }

  Result<std::vector<proxy::Traffic>> traffic() override {
    std::vector<proxy::Traffic> out;
    for (auto& s : syncs_) FL_CHECK(s.traffic(out));
    return out;
  }

  std::string render_text(const proxy::Plan& plan) const override {
    FakeKernel fake;
    std::string out;
    for (const Family f : {Family::v4, Family::v6}) {
      if (!plan.global->enabled(f)) continue;
      fake.state(f).node_addresses = addresses_for_print(*plan.global, f);
      FamilySync sync(f, fake, options_);
      ApplyReport report;
      if (auto done = sync.apply(plan.full_delta(), report); !done) return "error: " + done.error().message + "\n";
      out += to_text(sync.desired());
    }
    return out;
  }

  void on_foreign_change(std::function<void()> handler) override {
    if (watching_) [[maybe_unused]] const auto r = kernel_.watch({});
    watching_ = false;
    handler_ = std::move(handler);
  }

 private:
  void start_watching() {
    const auto r = kernel_.watch([this] {
      foreign_ = true;
      handler_();
    });
    watching_ = r.has_value();
    if (!watching_) log::warn("ipvs: changes of addresses will be noticed late: {}", r.error().message);
  }

  // The node's addresses are not known where rules are only printed: those that are named, else one for all of them.
  static std::vector<IpAddress> addresses_for_print(const proxy::GlobalPlan& g, Family f) {
    std::vector<IpAddress> out;
    for (const auto& p : g.node_ports.prefixes)
      if (p.family() == f && p.length() == p.address().bits()) out.push_back(p.address());
    if (out.empty()) out.push_back(f == Family::v4 ? IpAddress{} : *IpAddress::parse("::"));
    std::sort(out.begin(), out.end());
    return out;
  }

  // Families do not come and go while a proxy runs: what an earlier one left is removed once.
  Result<> drop_family(std::size_t i) {
    if (!active_[i]) return {};
    FL_CHECK(syncs_[i].remove());
    active_[i] = false;
    return {};
  }

  std::unique_ptr<Kernel> owned_;
  Kernel& kernel_;
  const Options options_;
  std::array<FamilySync, 2> syncs_;
  std::array<bool, 2> active_{true, true};
  std::atomic<bool> foreign_{false};
  std::function<void()> handler_;
  bool watching_ = false;
};

}  // namespace

std::unique_ptr<proxy::Dataplane> make_dataplane(Kernel& kernel, const Options& options) {
  return std::make_unique<IpvsDataplane>(kernel, options);
}

Result<std::unique_ptr<proxy::Dataplane>> open_installed(const Options& options) {
  FL_TRY(auto kernel, open_kernel(options.iptables_backend));
  return std::unique_ptr<proxy::Dataplane>(new IpvsDataplane(std::move(kernel), options));
}

Result<std::unique_ptr<proxy::Dataplane>> open_dataplane(const Options& options) {
  FL_CHECK(load_modules());
  FL_TRY(auto kernel, open_kernel(options.iptables_backend));
  FL_CHECK(set_up_host(options.strict_arp));
  FL_TRY(const bool has, kernel->has_scheduler(options.scheduler));
  if (!has)
    return fail(ErrorCode::invalid_argument, "ipvs.scheduler: this kernel has no scheduler \"{}\" (module ip_vs_{})", options.scheduler, options.scheduler);
  return std::unique_ptr<proxy::Dataplane>(new IpvsDataplane(std::move(kernel), options));
}

}  // namespace fairlead::ipvs
