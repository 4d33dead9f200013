// Event, with its two faces. Their selectable fields stand in one order, for they share entries in one cache.
#include <fmt/core.h>

#include "controlplane/apiserver/registry/strategies/all.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/events/v1.pb.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

constexpr std::string_view kCoreFields[] = {"involvedObject.kind", "involvedObject.namespace",       "involvedObject.name",
                                            "involvedObject.uid",  "involvedObject.apiVersion",      "involvedObject.resourceVersion",
                                            "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"};
constexpr std::string_view kV1Fields[] = {"regarding.kind", "regarding.namespace",  "regarding.name",
                                          "regarding.uid",  "regarding.apiVersion", "regarding.resourceVersion",
                                          "regarding.fieldPath", "reason", "reportingController", "source", "type"};

void fill(const corev1::ObjectReference& r, const std::string& reason, const std::string& controller, const std::string& source,
          const std::string& type, std::vector<std::string>& out) {
  out = {r.kind(), r.namespace_(), r.name(), r.uid(), r.apiversion(), r.resourceversion(), r.fieldpath(), reason, controller,
         source.empty() ? controller : source, type};
}

void check_namespace(const std::string& event_ns, const std::string& object_ns, const char* member, ErrorList& e) {
  // Events about cluster-scoped objects live in "default" (or in kube-system for nodes of old clients).
  const bool ok = object_ns.empty() ? event_ns.empty() || event_ns == "default" || event_ns == "kube-system" : event_ns == object_ns;
  if (!ok) e.invalid(Path(member).child("namespace"), object_ns, "does not match event.namespace");
}

void check_new_style(const std::string& controller, const std::string& instance, const std::string& action, const std::string& reason,
                     const std::string& type, const std::string& note, const char* note_name, const char* controller_name, ErrorList& e) {
  if (controller.empty())
    e.required(Path(controller_name));
  else
    for (const auto& c : check_qualified_name(controller)) e.invalid(Path(controller_name), controller, c);
  const auto bounded = [&](const std::string& v, const char* name, std::size_t limit, bool required) {
    if (required && v.empty()) e.required(Path(name));
    if (v.size() > limit) e.invalid(Path(name), "", fmt::format("can have at most {} characters", limit));
  };
  bounded(instance, "reportingInstance", 128, true);
  bounded(action, "action", 128, true);
  bounded(reason, "reason", 128, true);
  bounded(note, note_name, 1024, false);
  if (type != "Normal" && type != "Warning") e.invalid(Path("type"), "", fmt::format("has invalid value: {}", type));
}

class EventStrategy final : public TypedStrategy<corev1::Event> {
 public:
  bool create_on_update() const override { return true; }
  std::span<const std::string_view> selectable_fields() const override { return kCoreFields; }

 protected:
  void check(const corev1::Event& v, ErrorList& e) const override {
    check_namespace(v.metadata().namespace_(), v.involvedobject().namespace_(), "involvedObject", e);
    if (v.has_eventtime())
      check_new_style(v.reportingcomponent(), v.reportinginstance(), v.action(), v.reason(), v.type(), v.message(), "message",
                      "reportingController", e);
  }
  void values(const corev1::Event& v, std::vector<std::string>& out) const override {
    fill(v.involvedobject(), v.reason(), v.reportingcomponent(), v.source().component(), v.type(), out);
  }
};

class EventsV1Strategy final : public TypedStrategy<eventsv1::Event> {
 public:
  bool create_on_update() const override { return true; }
  std::span<const std::string_view> selectable_fields() const override { return kV1Fields; }

 protected:
  void check(const eventsv1::Event& v, ErrorList& e) const override {
    check_namespace(v.metadata().namespace_(), v.regarding().namespace_(), "regarding", e);
    if (!v.has_eventtime()) e.required(Path("eventTime"));
    check_new_style(v.reportingcontroller(), v.reportinginstance(), v.action(), v.reason(), v.type(), v.note(), "note",
                    "reportingController", e);
  }
  void check_update(const eventsv1::Event& now, const eventsv1::Event& before, ErrorList& e) const override {
    for (const char* f : {"regarding", "reason", "action", "reportingController", "reportingInstance", "note", "type"})
      if (!field_equal(now, before, f)) e.invalid(Path(f), "", kImmutable);
  }
  void values(const eventsv1::Event& v, std::vector<std::string>& out) const override {
    fill(v.regarding(), v.reason(), v.reportingcontroller(), v.deprecatedsource().component(), v.type(), out);
  }
};

}  // namespace

std::unique_ptr<Strategy> event_strategy() { return std::make_unique<EventStrategy>(); }
std::unique_ptr<Strategy> events_v1_strategy() { return std::make_unique<EventsV1Strategy>(); }

}  // namespace fairlead::apiserver
