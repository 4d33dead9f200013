#include "iptables/dataplane.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "iptables/family_sync.h"
#include "iptables/kernel_fake.h"
#include "iptables/names.h"
#include "iptables/trace.h"

namespace fairlead::iptables {
namespace {

using proxy::ApplyReport;
using proxy::Decision;
using proxy::Drift;
using proxy::PlanDelta;
using std::chrono::steady_clock;

constexpr std::array<Family, 2> kFamilies{Family::v4, Family::v6};
// Counters cost a listing of all rules, so reading them may take at most one part in so many of the time.
constexpr int kReadingShare = 25;

// Shows the real kernel, and notes what would be written instead of writing it.
class DryRun final : public Kernel {
 public:
  explicit DryRun(Kernel& real) : real_(real) {}
  bool supports(Family family) const override { return real_.supports(family); }
  Result<Listing> save(Family family, Table table, bool counters) override { return real_.save(family, table, counters); }
  Result<> restore(Family family, const std::string& input) override {
    for (auto& s : steps_of(input)) steps.push_back(fmt::format("{} {}", family == Family::v4 ? "iptables" : "ip6tables", s));
    return {};
  }
  Result<bool> holds(Family family, const std::vector<Hook>& rules) override { return real_.holds(family, rules); }
  Result<> route_localnet() override { return {}; }
  std::size_t batch_size() const override { return real_.batch_size(); }
  std::vector<Drift> steps;

 private:
  Kernel& real_;
};

class IptablesDataplane final : public proxy::Dataplane {
 public:
  IptablesDataplane(Kernel& kernel, const Options& options, Kernel* other)
      : kernel_(kernel),
        other_(other),
        options_(options),
        syncs_{FamilySync(Family::v4, kernel, options.settings), FamilySync(Family::v6, kernel, options.settings)} {}
  IptablesDataplane(std::unique_ptr<Kernel> kernel, const Options& options, std::unique_ptr<Kernel> other)
      : IptablesDataplane(*kernel, options, other.get()) {
    owned_ = std::move(kernel);
    owned_other_ = std::move(other);
  }
  ~IptablesDataplane() override { stop_checking(); }

  std::string_view name() const override { return "iptables"; }

  Result<ApplyReport> apply(const PlanDelta& delta) override {
    const auto start = steady_clock::now();
    const std::lock_guard lock(mutex_);
    ApplyReport report;
    if (foreign_.exchange(false) || delta.relist)
      for (auto& s : syncs_) s.distrust();
    std::optional<Error> first;
    for (auto& s : syncs_) {
      // One that was just switched off loses its rules.
      auto done = enabled(*delta.global, s.family()) ? s.apply(delta, report) : drop_family(s, *delta.global, report);
      active_[index(s)] = enabled(*delta.global, s.family());
      if (!done && !first) first = std::move(done).error().with("{}", fairlead::to_string(s.family()));
    }
    report.services = std::max(report.services, delta.services.size());
    report.duration = steady_clock::now() - start;
    if (first) return fail(std::move(*first));
    leave_other();
    return report;
  }

  Result<> remove_all_owned() override {
    const std::lock_guard lock(mutex_);
    for (auto& s : syncs_) s.forget();
    for (auto* k : {&kernel_, other_})
      for (const Family f : kFamilies)
        if (k && k->supports(f)) FL_CHECK_CTX(remove_chains(*k, f, is_ours), "{}", fairlead::to_string(f));
    return {};
  }

  Result<std::vector<Drift>> verify(const proxy::Plan& plan) override {
    const std::lock_guard lock(mutex_);
    DryRun dry(kernel_);
    for (const Family f : kFamilies) {
      if (!enabled(*plan.global, f)) continue;
      FamilySync sync(f, dry, options_.settings);
      ApplyReport report;
      FL_CHECK(sync.apply(plan.full_delta(), report));
    }
    return std::move(dry.steps);
  }

  Result<Decision> trace(const proxy::Packet& packet) override {
    const std::lock_guard lock(mutex_);
    FL_TRY(const auto rules, save_all(kernel_, packet.destination.family()));
    if (!rules.at(Table::nat).find(kServices))
      return fail(ErrorCode::not_found, "no chain {} for {} in the kernel", kServices, fairlead::to_string(packet.destination.family()));
    FL_TRY(auto found, iptables::trace(rules, packet));
    return std::move(found.decision);
  }

  Result<std::vector<proxy::Traffic>> traffic() override {
    const std::lock_guard lock(mutex_);
    FL_CHECK(read(true));
    return reading_;
  }

  Result<std::vector<proxy::Figure>> figures() override {
    const std::lock_guard lock(mutex_);
    FL_CHECK(read(false));
    std::vector<proxy::Figure> out;
    std::uint64_t invalid = 0, localhost = 0;
    for (const auto& s : syncs_) {
      if (!active_[index(s)]) continue;
      const auto& f = figures_[index(s)];
      invalid += f.invalid, localhost += f.localhost;
      for (const Table t : {Table::filter, Table::nat}) {
        const metrics::Labels labels{{"ip_family", std::string(fairlead::to_string(s.family()))}, {"table", std::string(to_string(t))}};
        out.push_back({"sync_proxy_rules_iptables_total", labels, static_cast<double>(f.rules[static_cast<std::size_t>(t)])});
        out.push_back({"sync_proxy_rules_iptables_last", labels, static_cast<double>(s.written(t))});
      }
    }
    out.push_back({"iptables_ct_state_invalid_dropped_packets_total", {}, static_cast<double>(invalid)});
    out.push_back({"iptables_localhost_nodeports_accepted_packets_total", {}, static_cast<double>(localhost)});
    return out;
  }

  std::string render_text(const proxy::Plan& plan) const override {
    std::string out;
    for (const Family f : kFamilies) {
      if (!plan.global->enabled(f)) continue;
      FakeKernel fake;
      FamilySync sync(f, fake, options_.settings);
      ApplyReport report;
      if (auto done = sync.apply(plan.full_delta(), report); !done) return "error: " + done.error().message + "\n";
      out += fmt::format("# {}\n{}", fairlead::to_string(f), fake.text(f));
    }
    return out;
  }

  void on_foreign_change(std::function<void()> handler) override {
    stop_checking();
    if (!handler) return;
    stopping_ = false;
    checker_ = std::thread([this, handler = std::move(handler)] { check(handler); });
  }

 private:
  // Looks at the kernel, unless it did so a short while ago.
  Result<> read(bool with_traffic) {
    const auto begin = steady_clock::now();
    if (begin < next_reading_) return {};
    std::vector<proxy::Traffic> now;
    std::array<FamilySync::Figures, 2> figures;
    for (auto& s : syncs_)
      if (active_[index(s)]) FL_CHECK(s.read(with_traffic ? &now : nullptr, figures[index(s)]));
    reading_ = std::move(now);
    figures_ = figures;
    const auto end = steady_clock::now();
    next_reading_ = end + (end - begin) * (kReadingShare - 1);
    return {};
  }

  bool enabled(const proxy::GlobalPlan& global, Family f) const { return global.enabled(f) && kernel_.supports(f); }
  static std::size_t index(const FamilySync& s) { return s.family() == Family::v4 ? 0 : 1; }

  Result<> drop_family(FamilySync& s, const proxy::GlobalPlan& global, ApplyReport& report) {
    if (!active_[index(s)]) return {};
    s.forget();
    if (!kernel_.supports(s.family())) {
      if (global.enabled(s.family())) log::warn("the kernel has no iptables for {}: services get none of that family", fairlead::to_string(s.family()));
      return {};
    }
    FL_TRY(const auto removed, remove_chains(kernel_, s.family(), is_ours));
    report.operations += removed;
    return {};
  }

  void leave_other() {
    if (!other_) return;
    for (const Family f : kFamilies) {
      if (!other_->supports(f)) continue;
      const auto removed = remove_chains(*other_, f, is_ours);
      if (!removed) return log::warn("rules in the kernel's other iptables stay for now: {}", removed.error().message);
      if (*removed) log::info("removed {} rules and chains of an earlier proxy from the kernel's other iptables", *removed);
    }
    other_ = nullptr;
  }

  // On a thread of its own.
  void check(const std::function<void()>& handler) {
    std::unique_lock lock(checking_);
    while (!wake_.wait_for(lock, options_.check_interval, [this] { return stopping_; })) {
      lock.unlock();
      if (!intact()) {
        foreign_ = true;
        handler();
      }
      lock.lock();
    }
  }
  bool intact() {
    const std::lock_guard lock(mutex_);
    for (auto& s : syncs_) {
      if (!active_[index(s)]) continue;
      const auto there = s.intact();
      if (!there) log::warn("iptables: changes by others may be noticed late: {}", there.error().message);
      else if (!*there) return false;
    }
    return true;
  }
  void stop_checking() {
    {
      const std::lock_guard lock(checking_);
      stopping_ = true;
    }
    wake_.notify_all();
    if (checker_.joinable()) checker_.join();
  }

  std::unique_ptr<Kernel> owned_, owned_other_;
  Kernel& kernel_;
  Kernel* other_;
  const Options options_;
  std::mutex mutex_;  // kernel and syncs: the runner's worker and the checker
  std::array<FamilySync, 2> syncs_;
  std::array<bool, 2> active_{true, true};
  std::vector<proxy::Traffic> reading_;
  std::array<FamilySync::Figures, 2> figures_;
  steady_clock::time_point next_reading_{};
  std::atomic<bool> foreign_{false};
  std::mutex checking_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread checker_;
};

}  // namespace

std::unique_ptr<proxy::Dataplane> make_dataplane(Kernel& kernel, const Options& options, Kernel* other) {
  return std::make_unique<IptablesDataplane>(kernel, options, other);
}

Result<std::unique_ptr<proxy::Dataplane>> open_dataplane(const Options& options) {
  Backend backend{};
  if (options.backend) {
    backend = *options.backend;
  } else {
    FL_TRY(backend, choose_backend());
  }
  FL_TRY(auto kernel, open_kernel(backend));
  std::unique_ptr<Kernel> other;
  const Backend second = backend == Backend::nft ? Backend::legacy : Backend::nft;
  if (look_at(second).service_proxy) {
    FL_TRY(other, open_kernel(second));
  }
  log::info("using iptables-{}", to_string(backend));
  return std::unique_ptr<proxy::Dataplane>(new IptablesDataplane(std::move(kernel), options, std::move(other)));
}

}  // namespace fairlead::iptables
