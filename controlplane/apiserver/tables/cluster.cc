// Printers of Node, Namespace, Event, ConfigMap, Secret, ServiceAccount and Lease.
#include <fmt/core.h>

#include <set>

#include "base/text.h"
#include "controlplane/apiserver/tables/table.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/events/v1.pb.h"

namespace fairlead::apiserver {
namespace {

template <typename T>
std::string age(const T& o, WallTime now) {
  return age_of(o.metadata().creationtimestamp(), o.metadata().has_creationtimestamp(), now);
}

std::string node_status(const corev1::Node& n) {
  std::string out;
  for (const auto& c : n.status().conditions())
    if (c.type() == "Ready") out = c.status() == "True" ? "Ready" : "NotReady";
  if (out.empty()) out = "Unknown";
  if (n.spec().unschedulable()) out += ",SchedulingDisabled";
  return out;
}

std::string node_roles(const corev1::Node& n) {
  constexpr std::string_view prefix = "node-role.kubernetes.io/";
  std::set<std::string> roles;
  for (const auto& [k, v] : n.metadata().labels()) {
    if (k.starts_with(prefix) && k.size() > prefix.size()) roles.insert(k.substr(prefix.size()));
    if (k == "kubernetes.io/role" && !v.empty()) roles.insert(v);
  }
  std::string out;
  for (const auto& r : roles) out += (out.empty() ? "" : ",") + r;
  return out.empty() ? "<none>" : out;
}

std::string node_address(const corev1::Node& n, std::string_view type) {
  for (const auto& a : n.status().addresses())
    if (a.type() == type) return a.address();
  return "<none>";
}

std::string or_unknown(const std::string& s) { return s.empty() ? "<unknown>" : s; }

void print_node(const Message& o, WallTime now, Row& row) {
  const auto& n = static_cast<const corev1::Node&>(o);
  const auto& info = n.status().nodeinfo();
  row.cells = {n.metadata().name(), node_status(n), node_roles(n), age(n, now), info.kubeletversion(), node_address(n, "InternalIP"),
               node_address(n, "ExternalIP"), or_unknown(info.osimage()), or_unknown(info.kernelversion()),
               or_unknown(info.containerruntimeversion())};
}

void print_namespace(const Message& o, WallTime now, Row& row) {
  const auto& n = static_cast<const corev1::Namespace&>(o);
  row.cells = {n.metadata().name(), n.status().phase(), age(n, now)};
}

struct EventCells {
  std::string last, type, reason, object, subobject, source, message, first;
  std::int64_t count = 1;
};

std::string object_text(const corev1::ObjectReference& r) {
  return r.name().empty() ? lower(r.kind()) : lower(r.kind()) + "/" + r.name();
}

std::string source_text(const corev1::EventSource& s, const std::string& controller, const std::string& instance) {
  const auto& component = s.component().empty() ? controller : s.component();
  const auto& host = s.component().empty() ? instance : s.host();
  return host.empty() ? component : component + ", " + host;
}

std::string since(std::int64_t seconds, int nanos, WallTime now) {
  metav1::Time t;
  t.set_seconds(seconds);
  t.set_nanos(nanos);
  return age_of(t, true, now);
}

// First and last time and the count, from the fields that old and new recorders fill.
template <typename E>
void event_times(EventCells& c, const E& e, const metav1::Time& first, bool has_first, const metav1::Time& last, bool has_last,
                 std::int64_t count, WallTime now) {
  c.first = has_first ? age_of(first, true, now) : e.has_eventtime() ? since(e.eventtime().seconds(), e.eventtime().nanos(), now) : "<unknown>";
  c.last = c.first;
  c.count = count ? count : 1;
  if (e.has_series()) {
    c.last = since(e.series().lastobservedtime().seconds(), e.series().lastobservedtime().nanos(), now);
    c.count = e.series().count();
  } else if (has_last) {
    c.last = age_of(last, true, now);
  }
}

void fill_event_row(const EventCells& c, const std::string& name, Row& row) {
  row.cells = {c.last, c.type, c.reason, c.object, c.subobject, c.source, c.message, c.first, c.count, name};
}

void print_event(const Message& o, WallTime now, Row& row) {
  const auto& e = static_cast<const corev1::Event&>(o);
  EventCells c;
  event_times(c, e, e.firsttimestamp(), e.has_firsttimestamp(), e.lasttimestamp(), e.has_lasttimestamp(), e.count(), now);
  c.type = e.type();
  c.reason = e.reason();
  c.object = object_text(e.involvedobject());
  c.subobject = e.involvedobject().fieldpath();
  c.source = source_text(e.source(), e.reportingcomponent(), e.reportinginstance());
  c.message = std::string(trim(e.message(), kBlank));
  fill_event_row(c, e.metadata().name(), row);
}

void print_events_v1(const Message& o, WallTime now, Row& row) {
  const auto& e = static_cast<const eventsv1::Event&>(o);
  EventCells c;
  event_times(c, e, e.deprecatedfirsttimestamp(), e.has_deprecatedfirsttimestamp(), e.deprecatedlasttimestamp(),
              e.has_deprecatedlasttimestamp(), e.deprecatedcount(), now);
  c.type = e.type();
  c.reason = e.reason();
  c.object = object_text(e.regarding());
  c.subobject = e.regarding().fieldpath();
  c.source = source_text(e.deprecatedsource(), e.reportingcontroller(), e.reportinginstance());
  c.message = std::string(trim(e.note(), kBlank));
  fill_event_row(c, e.metadata().name(), row);
}

void print_config_map(const Message& o, WallTime now, Row& row) {
  const auto& c = static_cast<const corev1::ConfigMap&>(o);
  row.cells = {c.metadata().name(), static_cast<std::int64_t>(c.data().size() + c.binarydata().size()), age(c, now)};
}

void print_secret(const Message& o, WallTime now, Row& row) {
  const auto& s = static_cast<const corev1::Secret&>(o);
  row.cells = {s.metadata().name(), s.type(), static_cast<std::int64_t>(s.data().size()), age(s, now)};
}

void print_service_account(const Message& o, WallTime now, Row& row) {
  const auto& s = static_cast<const corev1::ServiceAccount&>(o);
  row.cells = {s.metadata().name(), age(s, now)};
}

void print_lease(const Message& o, WallTime now, Row& row) {
  const auto& l = static_cast<const coordinationv1::Lease&>(o);
  row.cells = {l.metadata().name(), l.spec().holderidentity(), age(l, now)};
}

std::vector<Column> event_columns() {
  return {{"Last Seen", "string", "", "Time since this was last seen.", 0},
          {"Type", "string", "", "Normal or Warning.", 0},
          {"Reason", "string", "", "Short, machine readable reason.", 0},
          {"Object", "string", "", "The object that this is about.", 0},
          {"Subobject", "string", "", "The part of the object that this is about.", 1},
          {"Source", "string", "", "Component that reported this.", 1},
          {"Message", "string", "", "What happened.", 0},
          {"First Seen", "string", "", "Time since this was first seen.", 1},
          {"Count", "integer", "", "How often this happened.", 1},
          {"Name", "string", "name", "Name of the event.", 1}};
}

}  // namespace

const TablePrinter& node_printer() {
  static const TablePrinter p({kNameColumn,
                               {"Status", "string", "", "Whether the node is ready, and open for new pods.", 0},
                               {"Roles", "string", "", "Roles of the node, from its labels.", 0},
                               kAgeColumn,
                               {"Version", "string", "", "Version that the node agent reports.", 0},
                               {"Internal-IP", "string", "", "Address inside the cluster.", 1},
                               {"External-IP", "string", "", "Address from outside.", 1},
                               {"OS-Image", "string", "", "Operating system of the node.", 1},
                               {"Kernel-Version", "string", "", "Kernel of the node.", 1},
                               {"Container-Runtime", "string", "", "Container runtime of the node.", 1}},
                              print_node);
  return p;
}

const TablePrinter& namespace_printer() {
  static const TablePrinter p({kNameColumn, {"Status", "string", "", "Active or Terminating.", 0}, kAgeColumn}, print_namespace);
  return p;
}

const TablePrinter& event_printer() {
  static const TablePrinter p(event_columns(), print_event);
  return p;
}

const TablePrinter& events_v1_printer() {
  static const TablePrinter p(event_columns(), print_events_v1);
  return p;
}

const TablePrinter& config_map_printer() {
  static const TablePrinter p({kNameColumn, {"Data", "integer", "", "Number of keys.", 0}, kAgeColumn}, print_config_map);
  return p;
}

const TablePrinter& secret_printer() {
  static const TablePrinter p(
      {kNameColumn, {"Type", "string", "", "What kind of secret this is.", 0}, {"Data", "integer", "", "Number of keys.", 0}, kAgeColumn},
      print_secret);
  return p;
}

const TablePrinter& service_account_printer() {
  static const TablePrinter p({kNameColumn, kAgeColumn}, print_service_account);
  return p;
}

const TablePrinter& lease_printer() {
  static const TablePrinter p({kNameColumn, {"Holder", "string", "", "Who holds the lease.", 0}, kAgeColumn}, print_lease);
  return p;
}

}  // namespace fairlead::apiserver
