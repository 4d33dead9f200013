#include "cni/ipam/host_local.h"

#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "cni/request.h"
#include "netlink/link.h"

namespace fairlead::cni {
namespace {

std::string trimmed(std::string s) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!s.empty() && is_space(s.back())) s.pop_back();
  s.erase(s.begin(), std::find_if_not(s.begin(), s.end(), is_space));
  return s;
}

std::optional<Lease> parse_lease(const IpAddress& ip, const std::string& text, BootTime now) {
  const auto newline = text.find('\n');
  Lease l{.ip = ip, .owner = {trimmed(text.substr(0, newline)), "eth0"}, .netns = "", .since = now};
  if (newline != std::string::npos && !trimmed(text.substr(newline)).empty()) l.owner.ifname = trimmed(text.substr(newline));
  if (!is_identifier(l.owner.container_id) || !netlink::check_link_name(l.owner.ifname)) return std::nullopt;
  return l;
}

std::chrono::system_clock::time_point modified(const std::string& path) {
  struct stat s;
  return ::stat(path.c_str(), &s) == 0 ? std::chrono::system_clock::from_time_t(s.st_mtime) : std::chrono::system_clock::time_point{};
}

}  // namespace

std::chrono::system_clock::time_point time_of_boot() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return std::chrono::system_clock::now() - std::chrono::seconds(t.tv_sec + 1);
}

CniResult<HostLocalLeases> read_host_local(const std::string& folder, const std::string& network, std::chrono::system_clock::time_point boot, BootTime now) {
  HostLocalLeases out;
  std::error_code ec;
  for (std::filesystem::directory_iterator it(folder + "/" + network, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string path = it->path().string(), name = it->path().filename().string();
    if (name.starts_with("last_reserved_ip.")) {
      CNI_TRY(const auto text, lift(read_file(path, 4096), Code::io_failure));
      if (const auto ip = IpAddress::parse(trimmed(text))) out.last.push_back(*ip);
      continue;
    }
    const auto ip = IpAddress::parse(name);
    if (!ip) continue;  // the lock file
    if (modified(path) < boot) {
      ++out.stale;
      continue;
    }
    CNI_TRY(const auto text, lift(read_file(path, 4096), Code::io_failure));
    if (const auto lease = parse_lease(*ip, text, now)) out.leases.push_back(*lease);
  }
  if (ec && ec != std::errc::no_such_file_or_directory) return cni_fail(Code::io_failure, "read {}/{}: {}", folder, network, ec.message());
  return out;
}

CniResult<std::size_t> import_leases(LeaseBook& book, const std::vector<RangeSet>& sets, const HostLocalLeases& from) {
  const auto ours = [&](const IpAddress& ip) { return std::any_of(sets.begin(), sets.end(), [&](const RangeSet& s) { return s.family() == ip.family() && s.find(ip) != nullptr; }); };
  std::size_t n = 0;
  for (const Lease& l : from.leases) {
    if (!ours(l.ip)) continue;
    CNI_CHECK(lift(book.put(l), Code::io_failure));
    ++n;
  }
  for (const IpAddress& ip : from.last)
    if (ours(ip)) CNI_CHECK(lift(book.set_last(ip), Code::io_failure));
  return n;
}

}  // namespace fairlead::cni
