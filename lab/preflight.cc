#include "lab/preflight.h"

#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/files.h"
#include "lab/network.h"

namespace fairlead::lab {
namespace fs = std::filesystem;
namespace {

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string rest = path != nullptr ? path : "";
  rest += ":/usr/local/sbin:/usr/sbin:/sbin";
  for (std::size_t at = 0; at < rest.size();) {
    const auto end = std::min(rest.find(':', at), rest.size());
    const auto candidate = rest.substr(at, end - at) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    at = end + 1;
  }
  return {};
}

// Runs a check in a child that may change its own namespaces; true when it returns 0.
template <typename F>
bool in_child(F&& f) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(f());
  int status = 1;
  return pid > 0 && ::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int try_namespaces() { return ::unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS) == 0 ? 0 : 1; }

int try_nftables() {
  if (::unshare(CLONE_NEWNET) != 0) return 1;
  mnl_socket* s = ::mnl_socket_open(NETLINK_NETFILTER);
  if (s == nullptr || ::mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) != 0) return 1;
  char buf[4096];
  nlmsghdr* h = ::mnl_nlmsg_put_header(buf);
  h->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | 16;  // NFT_MSG_GETGEN
  h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  auto* g = static_cast<nfgenmsg*>(::mnl_nlmsg_put_extra_header(h, sizeof(nfgenmsg)));
  *g = {.nfgen_family = 0, .version = NFNETLINK_V0, .res_id = 0};
  if (::mnl_socket_sendto(s, h, h->nlmsg_len) < 0) return 1;
  const auto n = ::mnl_socket_recvfrom(s, buf, sizeof buf);
  if (n <= 0) return 1;
  const auto* answer = reinterpret_cast<const nlmsghdr*>(buf);
  if (answer->nlmsg_type != NLMSG_ERROR) return 0;
  return static_cast<const nlmsgerr*>(::mnl_nlmsg_get_payload(answer))->error == 0 ? 0 : 1;
}

void check_programs(const Plan& plan, std::vector<Problem>& out) {
  for (const char* name : {"containerd", "ctr", "containerd-shim-runc-v2", "runc"})
    if (find_program(name).empty())
      out.push_back({fmt::format("the program {} is not installed", name), "apt-get install containerd runc"});
  for (const char* name : {"fairlead", "fairlead-cni"})
    if (!path_exists(plan.options.bin_dir + "/" + name))
      out.push_back({fmt::format("{}/{} is missing", plan.options.bin_dir, name), "build it: make build"});
  if (image_archives(plan.options.images_dir).empty())
    out.push_back({fmt::format("no image archives (*.tar) in {}", plan.options.images_dir), "build them: make build, or give --images"});
}

void check_kernel(std::vector<Problem>& out) {
  if (!in_child(try_namespaces))
    out.push_back({"this kernel or container does not allow new network, mount and pid namespaces", "run on a machine or VM of your own"});
  else if (!in_child(try_nftables))
    out.push_back({"this kernel has no nftables", "load it (modprobe nf_tables) or use a kernel from 5.13 with CONFIG_NF_TABLES"});
  const auto filesystems = read_file("/proc/filesystems");
  if (!filesystems || filesystems->find("\toverlay\n") == std::string::npos)
    out.push_back({"this kernel has no overlay file system loaded", "modprobe overlay"});
}

void check_addresses(const Plan& plan, std::vector<Problem>& out) {
  const struct {
    const char* flag;
    const Prefix& block;
  } rows[] = {{"--lan", plan.options.lan}, {"--pod-cidr", plan.options.pod_cidr}, {"--service-cidr", plan.options.service_cidr}};
  for (const auto& r : rows) {
    const auto routes = overlapping_routes(r.block, plan.options.bridge);
    if (routes && !routes->empty())
      out.push_back({fmt::format("{} {} overlaps this machine's route {}", r.flag, r.block.to_string(), routes->front()),
                     fmt::format("choose another block with {}", r.flag)});
  }
}

void check_disk(const Plan& plan, std::vector<Problem>& out) {
  auto dir = fs::path(plan.options.state_dir);
  while (!fs::exists(dir) && dir.has_parent_path() && dir != dir.root_path()) dir = dir.parent_path();
  struct statvfs v {};
  constexpr std::uint64_t need = 512ull << 20;
  if (::statvfs(dir.c_str(), &v) == 0 && std::uint64_t{v.f_bavail} * v.f_frsize < need)
    out.push_back({fmt::format("less than 512 MiB free at {}", dir.string()), "free some space, or use --state-dir"});
}

}  // namespace

std::vector<std::string> image_archives(const std::string& dir) {
  std::vector<std::string> out;
  std::error_code ec;
  for (const auto& e : fs::directory_iterator(dir, ec))
    if (e.path().extension() == ".tar") out.push_back(e.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<Problem> preflight(const Plan& plan) {
  if (::geteuid() != 0) return {{"the lab needs root (it makes network namespaces and containers)", "run it with sudo"}};
  std::vector<Problem> out;
  check_programs(plan, out);
  check_kernel(out);
  check_addresses(plan, out);
  check_disk(plan, out);
  return out;
}

}  // namespace fairlead::lab
