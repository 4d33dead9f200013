#include "nftables/dataplane.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>

#include "base/log.h"
#include "nftables/kernel_fake.h"
#include "nftables/kernel_netlink.h"
#include "nftables/table_sync.h"
#include "nftables/text.h"
#include "nftables/trace.h"

namespace fairlead::nftables {
namespace {

using proxy::ApplyReport;
using proxy::Decision;
using proxy::Drift;
using proxy::PlanDelta;

// Shows the real kernel, and notes what would be written instead of writing it.
class DryRun final : public Kernel {
 public:
  explicit DryRun(Kernel& real) : real_(real) {}
  Result<CommitReport> commit(const Batch& batch) override {
    const auto text = to_text(batch);
    for (std::size_t i = 0; i < text.size();) {
      const auto end = std::min(text.find('\n', i), text.size());
      steps.push_back(text.substr(i, end - i));
      i = end + 1;
    }
    return CommitReport{};
  }
  Result<std::optional<Table>> list(Family family, std::string_view table) override { return real_.list(family, table); }
  Result<std::vector<CountedElement>> elements(Family, std::string_view, const Set&) override { return std::vector<CountedElement>{}; }
  Result<std::optional<Element>> find(Family family, std::string_view table, const Set& set, const Element& key) override { return real_.find(family, table, set, key); }
  Result<std::uint32_t> generation() override { return real_.generation(); }
  Result<> watch(std::string, std::function<void()>) override { return {}; }
  std::vector<Drift> steps;

 private:
  Kernel& real_;
};

class NftablesDataplane final : public proxy::Dataplane {
 public:
  NftablesDataplane(Kernel& kernel, const Options& options)
      : kernel_(kernel), syncs_{TableSync(Family::v4, kernel), TableSync(Family::v6, kernel)} {
    for (auto& s : syncs_) s.refuse_released(options.refuse_released, *options.clock);
  }
  NftablesDataplane(std::unique_ptr<Kernel> kernel, const Options& options) : NftablesDataplane(*kernel, options) {
    owned_ = std::move(kernel);
  }
  ~NftablesDataplane() override {
    if (watching_) [[maybe_unused]] const auto r = kernel_.watch({}, {});
  }

  std::string_view name() const override { return "nftables"; }

  Result<ApplyReport> apply(const PlanDelta& delta) override {
    const auto start = std::chrono::steady_clock::now();
    ApplyReport report;
    if (foreign_.exchange(false) || delta.relist)
      for (auto& s : syncs_) s.distrust();
    std::optional<Error> first;
    for (auto& s : syncs_) {
      // A family that is off has no table; one that was just switched off loses it.
      auto done = delta.global->enabled(s.family()) ? s.apply(delta, report) : drop_family(s);
      if (!done && !first) first = std::move(done).error().with("{}", fairlead::to_string(s.family()));
    }
    report.services = std::max(report.services, delta.services.size());
    report.duration = std::chrono::steady_clock::now() - start;
    if (first) return fail(std::move(*first));
    if (handler_ && !watching_) start_watching();
    return report;
  }

  Result<> remove_all_owned() override {
    for (auto& s : syncs_) FL_CHECK_CTX(s.remove(), "remove the {} table", fairlead::to_string(s.family()));
    return {};
  }

  Result<std::vector<Drift>> verify(const proxy::Plan& plan) override {
    DryRun dry(kernel_);
    for (const auto& s : syncs_) {
      if (!plan.global->enabled(s.family())) continue;
      TableSync sync(s.family(), dry);
      sync.refuse_released(std::chrono::minutes(1), SystemClock::get());  // addresses that still refuse are no drift
      ApplyReport report;
      FL_CHECK(sync.apply(plan.full_delta(), report));
    }
    return std::move(dry.steps);
  }

  Result<Decision> trace(const proxy::Packet& packet) override {
    FL_TRY(const auto found, kernel_.list(packet.destination.family(), kTableName));
    if (!found) return fail(ErrorCode::not_found, "no table {} for {} in the kernel", kTableName, fairlead::to_string(packet.destination.family()));
    return nftables::trace(*found, packet);
  }

  Result<std::vector<proxy::Traffic>> traffic() override {
    std::vector<proxy::Traffic> out;
    for (const auto& s : syncs_)
      if (active_[index(s)]) FL_CHECK(s.traffic(out));
    return out;
  }

  std::string render_text(const proxy::Plan& plan) const override {
    FakeKernel fake;
    std::string out;
    for (const Family f : {Family::v4, Family::v6}) {
      if (!plan.global->enabled(f)) continue;
      TableSync sync(f, fake);
      ApplyReport report;
      if (auto done = sync.apply(plan.full_delta(), report); !done) return "error: " + done.error().message + "\n";
      out += to_text(sync.desired());
    }
    return out;
  }

  void on_foreign_change(std::function<void()> handler) override {
    if (watching_) [[maybe_unused]] const auto r = kernel_.watch({}, {});
    watching_ = false;
    handler_ = std::move(handler);
  }

 private:
  static std::size_t index(const TableSync& s) { return s.family() == Family::v4 ? 0 : 1; }

  // Families do not come and go while a proxy runs: what an earlier one left is removed once.
  Result<> drop_family(TableSync& s) {
    if (!active_[index(s)]) return {};
    FL_CHECK(s.remove());
    active_[index(s)] = false;
    return {};
  }

  // Only after the first apply(): a listener makes the kernel describe every element of the first load.
  void start_watching() {
    const auto before = kernel_.generation();
    const auto heard = [this] {
      foreign_ = true;
      handler_();
    };
    const auto r = kernel_.watch(std::string(kTableName), heard);
    watching_ = r.has_value();
    if (!watching_) {
      log::warn("nftables: changes by others will be noticed late: {}", r.error().message);
      return;
    }
    const auto after = kernel_.generation();
    if (!before || !after || *before != *after) heard();  // it may have been about us
  }

  std::unique_ptr<Kernel> owned_;
  Kernel& kernel_;
  std::array<TableSync, 2> syncs_;
  std::array<bool, 2> active_{true, true};
  std::atomic<bool> foreign_{false};
  std::function<void()> handler_;
  bool watching_ = false;
};

}  // namespace

std::unique_ptr<proxy::Dataplane> make_dataplane(Kernel& kernel, const Options& options) {
  return std::make_unique<NftablesDataplane>(kernel, options);
}

Result<std::unique_ptr<proxy::Dataplane>> open_dataplane(const Options& options) {
  FL_TRY(auto kernel, open_kernel());
  if (auto g = kernel->generation(); !g)
    return fail(std::move(g).error().with("nf_tables does not answer (is CONFIG_NF_TABLES in this kernel, and are we root?)"));
  return std::unique_ptr<proxy::Dataplane>(new NftablesDataplane(std::move(kernel), options));
}

}  // namespace fairlead::nftables
