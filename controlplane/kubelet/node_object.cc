#include "controlplane/kubelet/node_object.h"

#include <google/protobuf/util/message_differencer.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/files.h"
#include "base/version.h"
#include "kube/quantity.h"

namespace fairlead::kubelet {
namespace {

constexpr std::int64_t kMemoryPressureBytes = 100ll << 20;
constexpr double kDiskPressure = 0.10, kInodePressure = 0.05;
constexpr std::int64_t kPidPressure = 100;
constexpr std::size_t kMaxImages = 50;

std::string first_line(const std::string& path) {
  auto text = read_file(path, 1 << 16);
  if (!text) return {};
  return text->substr(0, text->find('\n'));
}

std::int64_t number_after(const std::string& text, const std::string& key) {
  const auto at = text.find(key);
  if (at == std::string::npos) return 0;
  const auto digit = text.find_first_of("0123456789", at + key.size());
  std::int64_t value = 0;
  if (digit != std::string::npos) std::from_chars(text.data() + digit, text.data() + text.size(), value);
  return value;
}

std::string os_name() {
  const auto text = read_file("/etc/os-release", 1 << 16);
  if (!text) return "Linux";
  const auto at = text->find("PRETTY_NAME=\"");
  if (at == std::string::npos) return "Linux";
  return text->substr(at + 13, text->find('"', at + 13) - at - 13);
}

void set_quantity(google::protobuf::Map<std::string, resource::Quantity>* map, const char* name, std::string text) {
  (*map)[name].set_string(std::move(text));
}

void add_resources(const Settings& settings, const Machine& machine,
                   google::protobuf::Map<std::string, resource::Quantity>* out) {
  set_quantity(out, "cpu", std::to_string(machine.cpus));
  set_quantity(out, "memory", fmt::format("{}Ki", machine.memory_bytes / 1024));
  set_quantity(out, "ephemeral-storage", fmt::format("{}Ki", machine.storage_bytes / 1024));
  set_quantity(out, "pods", std::to_string(settings.max_pods));
}

class Conditions {
 public:
  Conditions(corev1::NodeStatus* out, const corev1::NodeStatus& previous, WallTime now)
      : out_(out), previous_(previous), now_(std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count()) {}
  void add(const char* type, bool status, std::string reason, std::string message) {
    auto* c = out_->add_conditions();
    c->set_type(type);
    c->set_status(status ? "True" : "False");
    c->set_reason(std::move(reason));
    c->set_message(std::move(message));
    c->mutable_lastheartbeattime()->set_seconds(now_);
    c->mutable_lasttransitiontime()->set_seconds(now_);
    for (const auto& old : previous_.conditions())
      if (old.type() == type && old.status() == c->status() && old.has_lasttransitiontime())
        *c->mutable_lasttransitiontime() = old.lasttransitiontime();
  }

 private:
  corev1::NodeStatus* out_;
  const corev1::NodeStatus& previous_;
  std::int64_t now_;
};

}  // namespace

Machine read_machine(const std::string& root_dir) {
  Machine m;
  m.cpus = std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN));
  m.memory_bytes = number_after(read_file("/proc/meminfo", 1 << 16).value_or(""), "MemTotal:") * 1024;
  struct statvfs fs {};
  if (::statvfs(root_dir.c_str(), &fs) == 0)
    m.storage_bytes = static_cast<std::int64_t>(fs.f_blocks) * static_cast<std::int64_t>(fs.f_frsize);
  m.machine_id = first_line("/etc/machine-id");
  m.system_uuid = first_line("/sys/class/dmi/id/product_uuid");
  if (m.system_uuid.empty()) m.system_uuid = m.machine_id;
  m.boot_id = first_line("/proc/sys/kernel/random/boot_id");
  struct utsname u {};
  ::uname(&u);
  m.kernel = u.release;
  const std::string machine = u.machine;
  m.architecture = machine == "x86_64" ? "amd64" : machine == "aarch64" ? "arm64" : machine;
  m.os_image = os_name();
  return m;
}

NodeHealth read_health(const std::string& root_dir) {
  NodeHealth h;
  h.available_memory_bytes = number_after(read_file("/proc/meminfo", 1 << 16).value_or(""), "MemAvailable:") * 1024;
  struct statvfs fs {};
  if (::statvfs(root_dir.c_str(), &fs) == 0 && fs.f_blocks > 0) {
    h.free_storage = static_cast<double>(fs.f_bavail) / static_cast<double>(fs.f_blocks);
    if (fs.f_files > 0) h.free_inodes = static_cast<double>(fs.f_favail) / static_cast<double>(fs.f_files);
  }
  // "0.20 0.18 0.12 1/80 11206": running and existing tasks.
  const std::string load = first_line("/proc/loadavg");
  const std::int64_t most = number_after(first_line("/proc/sys/kernel/pid_max"), "");
  const auto slash = load.find('/');
  if (slash != std::string::npos && most > 0) h.free_pids = most - number_after(load.substr(slash), "");
  return h;
}

Result<std::vector<corev1::Taint>> parse_taints(const std::string& text) {
  std::vector<corev1::Taint> out;
  std::size_t at = 0;
  while (at < text.size()) {
    const auto comma = std::min(text.find(',', at), text.size());
    const std::string one = text.substr(at, comma - at);
    at = comma + 1;
    const auto colon = one.rfind(':');
    const auto equals = one.find('=');
    corev1::Taint t;
    t.set_key(one.substr(0, std::min(equals, colon)));
    if (equals != std::string::npos && equals < colon) t.set_value(one.substr(equals + 1, colon - equals - 1));
    if (colon != std::string::npos) t.set_effect(one.substr(colon + 1));
    if (t.key().empty() || (t.effect() != "NoSchedule" && t.effect() != "PreferNoSchedule" && t.effect() != "NoExecute"))
      return fail(ErrorCode::invalid_argument,
                  "taint \"{}\" is not KEY[=VALUE]:EFFECT with the effect NoSchedule, PreferNoSchedule or NoExecute", one);
    out.push_back(std::move(t));
  }
  return out;
}

Result<std::map<std::string, std::string>> parse_labels(const std::string& text) {
  std::map<std::string, std::string> out;
  std::size_t at = 0;
  while (at < text.size()) {
    const auto comma = std::min(text.find(',', at), text.size());
    const std::string one = text.substr(at, comma - at);
    at = comma + 1;
    const auto equals = one.find('=');
    if (equals == 0 || equals == std::string::npos || equals > 317 || one.size() - equals - 1 > 63)
      return fail(ErrorCode::invalid_argument, "label \"{}\" is not KEY=VALUE", one);
    out[one.substr(0, equals)] = one.substr(equals + 1);
  }
  return out;
}

corev1::Node make_node(const Settings& settings, const Machine& machine, const NodeIdentity& identity) {
  corev1::Node node;
  node.mutable_metadata()->set_name(settings.node_name);
  auto& labels = *node.mutable_metadata()->mutable_labels();
  for (const char* prefix : {"", "beta."}) {
    labels[std::string(prefix) + "kubernetes.io/os"] = "linux";
    labels[std::string(prefix) + "kubernetes.io/arch"] = machine.architecture;
  }
  labels["kubernetes.io/hostname"] = settings.node_name;
  for (const auto& [k, v] : identity.labels) labels[k] = v;
  for (const auto& t : identity.taints) *node.mutable_spec()->add_taints() = t;
  if (!identity.provider_id.empty()) node.mutable_spec()->set_providerid(identity.provider_id);
  return node;
}

corev1::NodeStatus make_node_status(const Settings& settings, const Machine& machine, const NodeIdentity& identity,
                                    const NodeHealth& health, const std::vector<ImageRecord>& images,
                                    const corev1::NodeStatus& previous, WallTime now) {
  corev1::NodeStatus out;
  add_resources(settings, machine, out.mutable_capacity());
  add_resources(settings, machine, out.mutable_allocatable());
  for (const std::string& ip : settings.node_ips) {
    auto* a = out.add_addresses();
    a->set_type("InternalIP");
    a->set_address(ip);
  }
  auto* host = out.add_addresses();
  host->set_type("Hostname");
  host->set_address(settings.node_name);
  out.mutable_daemonendpoints()->mutable_kubeletendpoint()->set_port(identity.port);
  auto* info = out.mutable_nodeinfo();
  info->set_machineid(machine.machine_id);
  info->set_systemuuid(machine.system_uuid);
  info->set_bootid(machine.boot_id);
  info->set_kernelversion(machine.kernel);
  info->set_osimage(machine.os_image);
  if (!health.version.name.empty()) info->set_containerruntimeversion(health.version.name + "://" + health.version.version);
  info->set_kubeletversion(fmt::format("{}+fairlead-{}", kKubernetesVersion, kVersion));
  info->set_operatingsystem("linux");
  info->set_architecture(machine.architecture);

  Conditions conditions(&out, previous, now);
  const bool memory = health.available_memory_bytes < kMemoryPressureBytes;
  conditions.add("MemoryPressure", memory, memory ? "KubeletHasInsufficientMemory" : "KubeletHasSufficientMemory",
                 memory ? "the node has insufficient memory available" : "the node has sufficient memory available");
  const bool disk = health.free_storage < kDiskPressure || health.free_inodes < kInodePressure;
  conditions.add("DiskPressure", disk, disk ? "KubeletHasDiskPressure" : "KubeletHasNoDiskPressure",
                 disk ? "the node has disk pressure" : "the node has no disk pressure");
  const bool pids = health.free_pids < kPidPressure;
  conditions.add("PIDPressure", pids, pids ? "KubeletHasInsufficientPID" : "KubeletHasSufficientPID",
                 pids ? "the node has insufficient PID available" : "the node has sufficient PID available");
  std::string why;
  if (!health.runtime_answers) {
    why = "container runtime does not answer: " + health.runtime_error;
  } else {
    if (!health.runtime.runtime_ready) why = "container runtime is not ready: " + health.runtime.runtime_message;
    if (!health.runtime.network_ready)
      why += std::string(why.empty() ? "" : ", ") + "container runtime network is not ready: " + health.runtime.network_message;
  }
  conditions.add("Ready", why.empty(), why.empty() ? "KubeletReady" : "KubeletNotReady",
                 why.empty() ? "the node agent is posting ready status" : why);

  std::vector<ImageRecord> largest = images;
  std::sort(largest.begin(), largest.end(),
            [](const auto& a, const auto& b) { return a.size != b.size ? a.size > b.size : a.id < b.id; });
  largest.resize(std::min(largest.size(), kMaxImages));
  for (const ImageRecord& i : largest) {
    auto* image = out.add_images();
    for (const std::string& name : i.names) image->add_names(name);
    image->set_sizebytes(static_cast<std::int64_t>(i.size));
  }
  return out;
}

bool node_status_changed(const corev1::NodeStatus& a, const corev1::NodeStatus& b) {
  corev1::NodeStatus x = a, y = b;
  for (corev1::NodeStatus* s : {&x, &y})
    for (auto& c : *s->mutable_conditions()) c.clear_lastheartbeattime();
  return !google::protobuf::util::MessageDifferencer::Equals(x, y);
}

}  // namespace fairlead::kubelet
