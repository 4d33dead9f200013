#include "controlplane/apiserver/events_conversion.h"

#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/events/v1.pb.h"

namespace fairlead::apiserver {

void events_v1_from_core(const Message& from, Message& to) {
  const auto& c = static_cast<const corev1::Event&>(from);
  auto& e = static_cast<eventsv1::Event&>(to);
  if (c.has_metadata()) *e.mutable_metadata() = c.metadata();
  if (c.has_eventtime()) *e.mutable_eventtime() = c.eventtime();
  if (c.has_series()) {
    e.mutable_series()->set_count(c.series().count());
    if (c.series().has_lastobservedtime()) *e.mutable_series()->mutable_lastobservedtime() = c.series().lastobservedtime();
  }
  if (c.has_reportingcomponent()) e.set_reportingcontroller(c.reportingcomponent());
  if (c.has_reportinginstance()) e.set_reportinginstance(c.reportinginstance());
  if (c.has_action()) e.set_action(c.action());
  if (c.has_reason()) e.set_reason(c.reason());
  if (c.has_involvedobject()) *e.mutable_regarding() = c.involvedobject();
  if (c.has_related()) *e.mutable_related() = c.related();
  if (c.has_message()) e.set_note(c.message());
  if (c.has_type()) e.set_type(c.type());
  if (c.has_source()) *e.mutable_deprecatedsource() = c.source();
  if (c.has_firsttimestamp()) *e.mutable_deprecatedfirsttimestamp() = c.firsttimestamp();
  if (c.has_lasttimestamp()) *e.mutable_deprecatedlasttimestamp() = c.lasttimestamp();
  if (c.has_count()) e.set_deprecatedcount(c.count());
}

void core_from_events_v1(const Message& from, Message& to) {
  const auto& e = static_cast<const eventsv1::Event&>(from);
  auto& c = static_cast<corev1::Event&>(to);
  if (e.has_metadata()) *c.mutable_metadata() = e.metadata();
  if (e.has_eventtime()) *c.mutable_eventtime() = e.eventtime();
  if (e.has_series()) {
    c.mutable_series()->set_count(e.series().count());
    if (e.series().has_lastobservedtime()) *c.mutable_series()->mutable_lastobservedtime() = e.series().lastobservedtime();
  }
  if (e.has_reportingcontroller()) c.set_reportingcomponent(e.reportingcontroller());
  if (e.has_reportinginstance()) c.set_reportinginstance(e.reportinginstance());
  if (e.has_action()) c.set_action(e.action());
  if (e.has_reason()) c.set_reason(e.reason());
  if (e.has_regarding()) *c.mutable_involvedobject() = e.regarding();
  if (e.has_related()) *c.mutable_related() = e.related();
  if (e.has_note()) c.set_message(e.note());
  if (e.has_type()) c.set_type(e.type());
  if (e.has_deprecatedsource()) *c.mutable_source() = e.deprecatedsource();
  if (e.has_deprecatedfirsttimestamp()) *c.mutable_firsttimestamp() = e.deprecatedfirsttimestamp();
  if (e.has_deprecatedlasttimestamp()) *c.mutable_lasttimestamp() = e.deprecatedlasttimestamp();
  if (e.has_deprecatedcount()) c.set_count(e.deprecatedcount());
}

}  // namespace fairlead::apiserver
