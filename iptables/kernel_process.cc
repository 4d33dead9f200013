#include "iptables/kernel_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <thread>

#include "base/process.h"
#include "netlink/netns.h"
#include "netlink/sysctl.h"

namespace fairlead::iptables {
namespace {

using namespace std::chrono_literals;

constexpr auto kTimeout = 5min;
constexpr const char* kLockWait = "5";  // seconds that a tool waits for the lock of iptables-legacy
constexpr int kTries = 3;
constexpr int kResourceProblem = 4;  // exit code: locked out, or the kernel was busy
// A restore of iptables-nft grows worse than linearly with its length; 1.8.9 is best at about a thousand lines.
constexpr std::size_t kNftBatch = 1'200;
constexpr std::size_t kLegacyBatch = 1'000'000;
constexpr std::size_t kMostOutput = std::size_t{1} << 30;  // 30,000 services with 10 endpoints print about 100 MB

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

// The tools say "line 12 failed", "Error occurred at line: 12" or "line 12: ...".
std::string explain(std::string_view what, std::string_view input) {
  for (std::size_t at = what.find("line"); at != std::string_view::npos; at = what.find("line", at + 1)) {
    const auto digits = what.find_first_of("0123456789", at);
    if (digits == std::string_view::npos || digits > at + 6) continue;
    std::size_t number = 0;
    std::from_chars(what.data() + digits, what.data() + what.size(), number);
    return fmt::format("{}: {}", first_line(what), line_of(input, number));
  }
  return first_line(what);
}

class ProcessKernel final : public Kernel {
 public:
  ProcessKernel(Backend backend, netlink::NetNs ns) : backend_(backend), ns_(std::move(ns)) {}

  bool supports(Family family) const override { return family == Family::v4 || ipv6_; }

  Result<Listing> save(Family family, Table table, bool counters) override {
    std::vector<std::string> argv{tool(family, "save"), "-t", std::string(to_string(table))};
    if (counters) argv.push_back("-c");
    FL_TRY(const auto out, run(argv, {}));
    if (!out.status.ok() && out.stderr_text.find("Table does not exist") != std::string::npos) return Listing{};
    if (!out.status.ok()) return failed(argv[0], out, {});
    return Listing::parse(std::move(out.stdout_text), table);
  }

  Result<> restore(Family family, const std::string& input) override {
    const std::vector<std::string> argv{tool(family, "restore"), "--noflush", "-w", kLockWait};
    for (int attempt = 1;; ++attempt) {
      FL_TRY(const auto out, run(argv, input));
      if (out.status.ok()) return {};
      if (out.status.code != kResourceProblem || attempt == kTries) return failed(argv[0], out, input);
      std::this_thread::sleep_for(attempt * 50ms);
    }
  }

  Result<bool> holds(Family family, const std::vector<Hook>& rules) override {
    // Restoring nothing but checks changes nothing, and takes one process for all of them.
    std::string input;
    for (const Table t : kTables) {
      std::string checks;
      for (const auto& r : rules)
        if (r.table == t) checks += fmt::format("-C {} {}\n", r.chain, r.rule);
      if (!checks.empty()) input += fmt::format("*{}\n{}COMMIT\n", to_string(t), checks);
    }
    const std::vector<std::string> argv{tool(family, "restore"), "--noflush", "-w", kLockWait};
    FL_TRY(const auto out, run(argv, input));
    if (out.status.ok()) return true;
    // 1: no such rule; 2: no such chain to jump to.
    if (out.status.code == 1 || out.status.code == 2) return false;
    return failed(argv[0], out, input);
  }

  Result<> route_localnet() override {
    return netlink::in_netns(ns_.fd(), [] { return netlink::write_sysctl("net/ipv4/conf/all/route_localnet", "1"); });
  }

  std::size_t batch_size() const override { return backend_ == Backend::nft ? kNftBatch : kLegacyBatch; }

  // Whether the tools are there and the kernel answers them; for IPv6 only noted.
  Result<> probe() {
    for (const Family f : {Family::v4, Family::v6}) {
      const std::vector<std::string> argv{tool(f, "restore"), "--noflush", "--test", "-w", kLockWait};
      FL_TRY(const auto out, run(argv, "*nat\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n"));
      if (f == Family::v6) ipv6_ = out.status.ok();
      else if (!out.status.ok())
        return fail(ErrorCode::failed_precondition, "{} ({}; is it in this kernel, and are we root?)", first_line(out.stderr_text),
                    out.status.to_string());
    }
    return {};
  }

 private:
  std::string tool(Family family, std::string_view verb) const {
    return fmt::format("{}-{}-{}", family == Family::v4 ? "iptables" : "ip6tables", to_string(backend_), verb);
  }
  Result<CommandOutput> run(const std::vector<std::string>& argv, std::string_view input) {
    ProcessOptions o;
    o.argv = argv;
    o.most_output = kMostOutput;
    o.netns = fmt::format("/proc/self/fd/{}", ns_.fd());
    return run_command(o, input, kTimeout);
  }
  static Failure failed(const std::string& program, const CommandOutput& out, std::string_view input) {
    const auto code = out.status.code == kResourceProblem ? ErrorCode::unavailable : ErrorCode::failed_precondition;
    return fail(code, "{}: {} ({})", program, explain(out.stderr_text, input), out.status.to_string());
  }

  Backend backend_;
  netlink::NetNs ns_;
  bool ipv6_ = true;
};

}  // namespace

std::string_view to_string(Backend b) { return b == Backend::nft ? "nft" : "legacy"; }

Result<std::optional<Backend>> parse_backend(std::string_view text) {
  if (text == "auto") return std::nullopt;
  if (text == "nft") return Backend::nft;
  if (text == "legacy") return Backend::legacy;
  return fail(ErrorCode::invalid_argument, "\"{}\" is not auto, nft or legacy", text);
}

std::string_view line_of(std::string_view input, std::size_t number) {
  for (std::size_t i = 1; i < number && !input.empty(); ++i) {
    const auto end = input.find('\n');
    input = end == std::string_view::npos ? std::string_view{} : input.substr(end + 1);
  }
  return input.substr(0, input.find('\n'));
}

Result<Listings> save_all(Kernel& kernel, Family family) {
  Listings out;
  for (const Table t : kTables) {
    FL_TRY_CTX(out[t], kernel.save(family, t), "list table {}", to_string(t));
  }
  return out;
}

Result<std::unique_ptr<Kernel>> open_kernel(Backend backend) {
  FL_TRY(auto ns, netlink::NetNs::current());
  auto kernel = std::make_unique<ProcessKernel>(backend, std::move(ns));
  FL_CHECK_CTX(kernel->probe(), "iptables-{}", to_string(backend));
  return std::unique_ptr<Kernel>(std::move(kernel));
}

// Without naming a table, so that the tools of one backend do not create tables of theirs where the other one is used.
BackendEvidence look_at(Backend backend) {
  BackendEvidence e;
  for (const std::string_view family : {"iptables", "ip6tables"}) {
    const auto saved = run_command({.argv = {fmt::format("{}-{}-save", family, to_string(backend))}, .most_output = kMostOutput}, {}, kTimeout);
    if (!saved || !saved->status.ok()) continue;  // not installed, or not in this kernel
    e.usable = true;
    for (const Table t : kTables) {
      const auto listing = Listing::parse(saved->stdout_text, t);
      if (!listing) continue;
      for (const auto& [name, chain] : listing->chains()) {
        const bool hint = name == "KUBE-IPTABLES-HINT" || name == "KUBE-KUBELET-CANARY";
        e.kubelet |= t == Table::mangle && hint;
        e.service_proxy |= name.starts_with("KUBE-") && !hint && name != "KUBE-FIREWALL" && name != "KUBE-MARK-DROP";
        e.rules += chain.rules.size() + (chain.builtin ? 0 : 1);
      }
    }
  }
  return e;
}

Backend choose_backend(const BackendEvidence& nft, const BackendEvidence& legacy) {
  if (nft.usable != legacy.usable) return nft.usable ? Backend::nft : Backend::legacy;
  if (nft.kubelet != legacy.kubelet) return nft.kubelet ? Backend::nft : Backend::legacy;
  return legacy.rules > nft.rules ? Backend::legacy : Backend::nft;
}

Result<Backend> choose_backend() {
  const auto nft = look_at(Backend::nft), legacy = look_at(Backend::legacy);
  if (!nft.usable && !legacy.usable)
    return fail(ErrorCode::failed_precondition, "neither iptables-nft nor iptables-legacy works here: install iptables, run as root");
  return choose_backend(nft, legacy);
}

}  // namespace fairlead::iptables
