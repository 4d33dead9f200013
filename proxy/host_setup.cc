#include "proxy/host_setup.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <thread>

#include "base/files.h"
#include "netlink/sysctl.h"

namespace fairlead::proxy {
namespace {

constexpr std::int64_t kMostScaled = 1'048'576;

std::string seconds(nanoseconds d) { return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(d).count()); }

Result<std::string> read(const HostSetting& s) {
  if (!s.key.starts_with('/')) return netlink::read_sysctl(s.key);
  FL_TRY(auto text, read_file(s.key, 4096));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

Result<> write(const HostSetting& s) {
  if (!s.key.starts_with('/')) return netlink::write_sysctl(s.key, s.value);
  std::FILE* f = std::fopen(s.key.c_str(), "we");
  if (!f) return fail_errno(errno, "open {}", s.key);
  const bool ok = std::fputs(s.value.c_str(), f) >= 0;
  if (std::fclose(f) != 0 || !ok) return fail_errno(errno, "write {}", s.key);
  return {};
}

}  // namespace

std::vector<HostSetting> plan_host(const Config& c, unsigned cpus) {
  std::vector<HostSetting> out;
  const auto& ct = c.conntrack;
  if (ct.max_per_core > 0) {
    const std::int64_t scaled = std::int64_t{ct.max_per_core} * cpus;
    // Above a million, a larger machine does not mean more connections: then the figure is fixed.
    const std::int64_t most = scaled > kMostScaled ? kMostScaled : std::max<std::int64_t>(scaled, ct.min);
    out.push_back({"net/netfilter/nf_conntrack_max", std::to_string(most), false});
    out.push_back({"/sys/module/nf_conntrack/parameters/hashsize", std::to_string(most / 4), true});
  }
  const auto timeout = [&](std::string_view name, nanoseconds d) {
    if (d.count() > 0) out.push_back({fmt::format("net/netfilter/nf_conntrack_{}", name), seconds(d), false});
  };
  timeout("tcp_timeout_established", ct.tcp_established_timeout);
  timeout("tcp_timeout_close_wait", ct.tcp_close_wait_timeout);
  timeout("udp_timeout", ct.udp_timeout);
  timeout("udp_timeout_stream", ct.udp_stream_timeout);
  if (ct.tcp_be_liberal) out.push_back({"net/netfilter/nf_conntrack_tcp_be_liberal", "1", false});
  // IPVS counts by itself. Events about flows that end are on by default, but somebody may have switched them off.
  if (c.flow_accounting && c.mode != "ipvs") {
    out.push_back({"net/netfilter/nf_conntrack_acct", "1", false});
    out.push_back({"net/netfilter/nf_conntrack_events", "1", true});
  }
  out.push_back({"/proc/self/oom_score_adj", std::to_string(c.oom_score_adj), false});
  return out;
}

std::vector<std::string> set_up_host(const Config& config) {
  std::vector<std::string> problems;
  for (const auto& s : plan_host(config, std::max(1u, std::thread::hardware_concurrency()))) {
    const auto before = read(s);
    if (before && *before == s.value) continue;
    if (before && s.at_least) {
      std::int64_t have = 0, want = 0;
      std::from_chars(before->data(), before->data() + before->size(), have);
      std::from_chars(s.value.data(), s.value.data() + s.value.size(), want);
      if (have >= want) continue;
    }
    if (auto done = write(s); !done) problems.push_back(fmt::format("{} = {}: {}", s.key, s.value, done.error().message));
  }
  return problems;
}

}  // namespace fairlead::proxy
