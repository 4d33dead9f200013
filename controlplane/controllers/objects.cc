#include "controlplane/controllers/objects.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <charconv>

#include "base/ip.h"
#include "kube/codec.h"

namespace fairlead::controllers {

metav1::Time to_time(WallTime t) {
  metav1::Time out;
  out.set_seconds(std::chrono::floor<std::chrono::seconds>(t.time_since_epoch()).count());
  return out;
}

WallTime from_time(const metav1::Time& t) { return WallTime(std::chrono::seconds(t.seconds())); }

WallTime from_time(const metav1::MicroTime& t) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(std::chrono::seconds(t.seconds()) + std::chrono::nanoseconds(t.nanos())));
}

std::pair<std::string, std::string> split_key(std::string_view key) {
  const auto slash = key.find('/');
  if (slash == std::string_view::npos) return {"", std::string(key)};
  return {std::string(key.substr(0, slash)), std::string(key.substr(slash + 1))};
}

bool is_deleting(const metav1::ObjectMeta& meta) { return meta.has_deletiontimestamp(); }

const metav1::OwnerReference* controller_of(const metav1::ObjectMeta& meta) {
  for (const auto& r : meta.ownerreferences()) {
    if (r.controller()) return &r;
  }
  return nullptr;
}

std::string controller_uid(const metav1::ObjectMeta& meta) {
  const auto* r = controller_of(meta);
  return r ? r->uid() : std::string();
}

metav1::OwnerReference controller_reference(const kube::Kind& kind, const metav1::ObjectMeta& owner) {
  metav1::OwnerReference r;
  r.set_apiversion(kind.api_version());
  r.set_kind(std::string(kind.kind));
  r.set_name(owner.name());
  r.set_uid(owner.uid());
  r.set_controller(true);
  r.set_blockownerdeletion(true);
  return r;
}

std::string annotation(const metav1::ObjectMeta& meta, std::string_view name) {
  const auto it = meta.annotations().find(std::string(name));
  return it == meta.annotations().end() ? std::string() : it->second;
}

bool is_pod_ready(const corev1::Pod& pod) {
  const auto* c = find_condition(pod.status().conditions(), "Ready");
  return c && c->status() == "True";
}

bool is_pod_terminal(const corev1::Pod& pod) { return pod.status().phase() == "Succeeded" || pod.status().phase() == "Failed"; }

bool is_pod_active(const corev1::Pod& pod) { return !is_pod_terminal(pod) && !is_deleting(pod.metadata()); }

bool is_pod_available(const corev1::Pod& pod, std::int32_t min_ready_seconds, WallTime now) {
  if (!is_pod_ready(pod)) return false;
  if (min_ready_seconds == 0) return true;
  const auto* c = find_condition(pod.status().conditions(), "Ready");
  return c->has_lasttransitiontime() && from_time(c->lasttransitiontime()) + std::chrono::seconds(min_ready_seconds) <= now;
}

std::optional<WallTime> available_at(const corev1::Pod& pod, std::int32_t min_ready_seconds, WallTime now) {
  if (!is_pod_ready(pod) || is_pod_available(pod, min_ready_seconds, now)) return std::nullopt;
  const auto* c = find_condition(pod.status().conditions(), "Ready");
  if (!c->has_lasttransitiontime()) return std::nullopt;
  return from_time(c->lasttransitiontime()) + std::chrono::seconds(min_ready_seconds);
}

std::string pod_ip_of(const corev1::Pod& pod, bool v6) {
  for (const auto& ip : pod.status().podips()) {
    const auto parsed = IpAddress::parse(ip.ip());
    if (parsed && parsed->is_v6() == v6) return ip.ip();
  }
  if (!pod.status().podips().empty()) return {};
  const auto parsed = IpAddress::parse(pod.status().podip());
  return parsed && parsed->is_v6() == v6 ? pod.status().podip() : std::string();
}

std::string_view node_condition(const corev1::Node& node, std::string_view type) {
  const auto* c = find_condition(node.status().conditions(), type);
  return c ? std::string_view(c->status()) : std::string_view();
}

std::string deterministic_bytes(const google::protobuf::Message& m) {
  std::string out;
  google::protobuf::io::StringOutputStream stream(&out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  m.SerializePartialToCodedStream(&coded);
  coded.Trim();
  return out;
}

bool semantically_equal(const google::protobuf::Message& a, const google::protobuf::Message& b) {
  if (deterministic_bytes(a) == deterministic_bytes(b)) return true;
  return kube::to_json_value(a) == kube::to_json_value(b);
}

std::uint64_t version_of(const metav1::ObjectMeta& meta) {
  std::uint64_t v = 0;
  const std::string& text = meta.resourceversion();
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  return ec == std::errc{} && end == text.data() + text.size() ? v : 0;
}

}  // namespace fairlead::controllers
