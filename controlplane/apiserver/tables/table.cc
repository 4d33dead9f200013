#include "controlplane/apiserver/tables/table.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "kube/selector.h"

namespace fairlead::apiserver {
namespace json = boost::json;

json::array TablePrinter::column_definitions() const {
  json::array out;
  for (const auto& c : columns_)
    out.push_back({{"name", c.name}, {"type", c.type}, {"format", c.format}, {"description", c.description}, {"priority", c.priority}});
  return out;
}

Row TablePrinter::row(const Message& object, WallTime now) const {
  Row r;
  print_(object, now, r);
  return r;
}

std::string human_duration(std::chrono::nanoseconds d) {
  using namespace std::chrono;
  const auto s = duration_cast<seconds>(d).count();
  if (s < -1) return "<invalid>";
  if (s < 0) return "0s";
  if (s < 120) return fmt::format("{}s", s);
  const auto m = s / 60;
  if (m < 10) return s % 60 ? fmt::format("{}m{}s", m, s % 60) : fmt::format("{}m", m);
  if (m < 180) return fmt::format("{}m", m);
  const auto h = m / 60;
  if (h < 8) return m % 60 ? fmt::format("{}h{}m", h, m % 60) : fmt::format("{}h", h);
  if (h < 48) return fmt::format("{}h", h);
  if (h < 24 * 8) return h % 24 ? fmt::format("{}d{}h", h / 24, h % 24) : fmt::format("{}d", h / 24);
  if (h < 24 * 365 * 2) return fmt::format("{}d", h / 24);
  const auto days = h / 24;
  if (h < 24 * 365 * 8) return days % 365 ? fmt::format("{}y{}d", days / 365, days % 365) : fmt::format("{}y", days / 365);
  return fmt::format("{}y", days / 365);
}

std::string age_of(const metav1::Time& t, bool present, WallTime now) {
  return present ? human_duration(now - from_time(t)) : "<unknown>";
}

std::string join_labels(const google::protobuf::Map<std::string, std::string>& labels) {
  const std::map<std::string, std::string> sorted(labels.begin(), labels.end());
  std::string out;
  for (const auto& [k, v] : sorted) out += (out.empty() ? "" : ",") + k + "=" + v;
  return out.empty() ? "<none>" : out;
}

std::string selector_text(const metav1::LabelSelector& selector) {
  const auto parsed = kube::LabelSelector::from(selector);
  if (!parsed) return "<error>";
  return parsed->empty() ? "<none>" : parsed->to_string();
}

std::string list_with_more(const std::vector<std::string>& list, std::size_t count, std::string_view when_empty) {
  std::string out;
  for (const auto& item : list) out += (out.empty() ? "" : ",") + item;
  if (count > list.size()) return fmt::format("{} + {} more...", out, count - list.size());
  return out.empty() ? std::string(when_empty) : out;
}

const TablePrinter& table_printer(std::string_view group, std::string_view kind) {
  static const TablePrinter generic({kNameColumn, kAgeColumn}, [](const Message& o, WallTime now, Row& r) {
    const auto& m = meta_of(o);
    r.cells = {m.name(), age_of(m.creationtimestamp(), m.has_creationtimestamp(), now)};
  });
  using Get = const TablePrinter& (*)();
  static const std::map<std::string, Get, std::less<>> by_kind = {
      {"/Pod", pod_printer},
      {"apps/ReplicaSet", replica_set_printer},
      {"apps/Deployment", deployment_printer},
      {"/Service", service_printer},
      {"/Endpoints", endpoints_printer},
      {"discovery.k8s.io/EndpointSlice", endpoint_slice_printer},
      {"/Node", node_printer},
      {"/Namespace", namespace_printer},
      {"/Event", event_printer},
      {"events.k8s.io/Event", events_v1_printer},
      {"/ConfigMap", config_map_printer},
      {"/Secret", secret_printer},
      {"/ServiceAccount", service_account_printer},
      {"coordination.k8s.io/Lease", lease_printer},
      {"networking.k8s.io/Ingress", ingress_printer},
      {"networking.k8s.io/IngressClass", ingress_class_printer},
      {"networking.k8s.io/IPAddress", ip_address_printer},
      {"networking.k8s.io/ServiceCIDR", service_cidr_printer},
  };
  const auto it = by_kind.find(fmt::format("{}/{}", group, kind));
  return it == by_kind.end() ? generic : it->second();
}

}  // namespace fairlead::apiserver
