// Subresources whose body is another kind: scale, pods/binding, pods/eviction, serviceaccounts/token.
#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/handlers/context.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/authentication/v1.pb.h"
#include "kube/proto/autoscaling/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/proto/policy/v1.pb.h"
#include "kube/selector.h"

namespace fairlead::apiserver {
namespace {

constexpr std::string_view kScaleVersion = "autoscaling/v1";
constexpr std::int64_t kMinTokenSeconds = 600;
constexpr std::int64_t kDefaultTokenSeconds = 3600;
constexpr std::int64_t kMaxTokenSeconds = 1LL << 32;
constexpr std::int64_t kPodTokenSeconds = 3607;           // what the token volume asks for, and how long it then really lives:
constexpr std::int64_t kExtendedTokenSeconds = 31'536'000;  // a year, for clients that do not read the file again

// ---- scale

// Replicas and selector of the kinds that can be scaled.
template <typename T>
void fill_scale(const T& o, autoscalingv1::Scale& s) {
  s.mutable_spec()->set_replicas(o.spec().replicas());
  s.mutable_status()->set_replicas(o.status().replicas());
  if (const auto selector = kube::LabelSelector::from(o.spec().selector())) s.mutable_status()->set_selector(selector->to_string());
}

ApiResult<autoscalingv1::Scale> scale_of(const Message& o) {
  autoscalingv1::Scale s;
  const auto& m = meta_of(o);
  auto& out = *s.mutable_metadata();
  out.set_name(m.name());
  out.set_namespace_(m.namespace_());
  out.set_uid(m.uid());
  out.set_resourceversion(m.resourceversion());
  *out.mutable_creationtimestamp() = m.creationtimestamp();
  if (const auto* d = dynamic_cast<const appsv1::Deployment*>(&o))
    fill_scale(*d, s);
  else if (const auto* r = dynamic_cast<const appsv1::ReplicaSet*>(&o))
    fill_scale(*r, s);
  else
    return api_fail(page_not_found());
  return s;
}

void set_replicas(Message& o, std::int32_t replicas) {
  if (auto* d = dynamic_cast<appsv1::Deployment*>(&o)) d->mutable_spec()->set_replicas(replicas);
  if (auto* r = dynamic_cast<appsv1::ReplicaSet*>(&o)) r->mutable_spec()->set_replicas(replicas);
}

ApiResult<> check_scale(const autoscalingv1::Scale& wanted, const autoscalingv1::Scale& current, const Resource& r) {
  if (!wanted.metadata().resourceversion().empty() && wanted.metadata().resourceversion() != current.metadata().resourceversion())
    return api_fail(modified_conflict(*r.kind, current.metadata().name()));
  if (wanted.spec().replicas() >= 0) return {};
  field::ErrorList e;
  require_non_negative(wanted.spec().replicas(), field::Path("spec").child("replicas"), e);
  return api_fail(invalid("autoscaling", "Scale", current.metadata().name(), e));
}

// ---- binding

ApiResult<> check_binding(const Resource& r, const corev1::Binding& b, const corev1::Pod& pod) {
  const auto& name = pod.metadata().name();
  if (!b.metadata().uid().empty() && b.metadata().uid() != pod.metadata().uid())
    return api_fail(conflict(*r.kind, name, fmt::format("Precondition failed: UID in precondition: {}, UID in object meta: {}",
                                                        b.metadata().uid(), pod.metadata().uid())));
  if (pod.metadata().has_deletiontimestamp())
    return api_fail(conflict(*r.kind, name, fmt::format("pod {} is being deleted, cannot be assigned to a host", name)));
  if (!pod.spec().nodename().empty())
    return api_fail(conflict(*r.kind, name, fmt::format("pod {} is already assigned to node \"{}\"", name, pod.spec().nodename())));
  if (pod.spec().schedulinggates_size() > 0)
    return api_fail(conflict(*r.kind, name, fmt::format("pod {} has non-empty .spec.schedulingGates", name)));
  return {};
}

void set_condition(corev1::Pod& pod, std::string_view type, std::string_view status, std::string_view reason,
                   std::string_view message, WallTime now) {
  corev1::PodCondition* c = nullptr;
  for (auto& existing : *pod.mutable_status()->mutable_conditions())
    if (existing.type() == type) c = &existing;
  if (!c) c = pod.mutable_status()->add_conditions();
  if (c->status() != status) *c->mutable_lasttransitiontime() = to_time(now);
  c->set_type(std::string(type));
  c->set_status(std::string(status));
  c->clear_reason();
  c->clear_message();
  if (!reason.empty()) c->set_reason(std::string(reason));
  if (!message.empty()) c->set_message(std::string(message));
}

metav1::Status created_status() {
  metav1::Status s;
  s.mutable_metadata();
  s.set_status("Success");
  s.set_code(201);
  return s;
}

}  // namespace

Task<Reply> handle_scale(Core& core, ContextPtr ctx) {
  API_CO_TRY(auto format, ctx->format());
  format.shape = Shape::object;
  const auto& r = *ctx->resource;
  const auto& info = ctx->info;
  if (info.verb == "get") {
    auto object = co_await core.registry->get(r, info.ns, info.name, ctx->query("resourceVersion"));
    if (!object) co_return api_fail(std::move(object).error());
    API_CO_TRY(const auto scale, scale_of(**object));
    co_return plain_response(200, scale, kScaleVersion, "Scale", format);
  }
  API_CO_TRY(const auto options, ctx->write_options());
  API_CO_TRY(const auto validation, ctx->field_validation());
  // PUT brings a Scale, PATCH changes the current one.
  Registry::Edit edit;
  if (info.verb == "update") {
    API_CO_TRY(auto body, decode_body(ctx->request, autoscalingv1::Scale::default_instance(), kScaleVersion, "Scale", validation,
                                      ctx->warnings));
    const std::shared_ptr<const Message> wanted = std::move(body);
    edit = [wanted, &r](const Message* current) -> ApiResult<Registry::Object> {
      API_TRY(const auto before, scale_of(*current));
      const auto& scale = static_cast<const autoscalingv1::Scale&>(*wanted);
      API_CHECK(check_scale(scale, before, r));
      auto now = clone(*current);
      set_replicas(*now, scale.spec().replicas());
      return now;
    };
  } else {
    API_CO_TRY(const auto type, patch_type(ctx->request));
    API_CO_TRY(auto patch, parse_patch(ctx->request));
    edit = [ctx, type, patch, validation, &r](const Message* current) -> ApiResult<Registry::Object> {
      API_TRY(const auto before, scale_of(*current));
      API_TRY(const auto patched, apply_patch(before, kScaleVersion, "Scale", type, patch, validation, ctx->warnings));
      const auto& scale = static_cast<const autoscalingv1::Scale&>(*patched);
      API_CHECK(check_scale(scale, before, r));
      auto now = clone(*current);
      set_replicas(*now, scale.spec().replicas());
      return now;
    };
  }
  auto done = co_await core.registry->update(r, info.ns, info.name, Registry::Part::main, edit, options);
  if (!done) co_return api_fail(std::move(done).error());
  API_CO_TRY(const auto scale, scale_of(*done->object));
  co_return plain_response(200, scale, kScaleVersion, "Scale", format);
}

Task<Reply> handle_binding(Core& core, ContextPtr ctx, bool top_level) {
  API_CO_TRY(auto format, ctx->format());
  format.shape = Shape::object;
  API_CO_TRY(const auto options, ctx->write_options());
  API_CO_TRY(const auto validation, ctx->field_validation());
  API_CO_TRY(auto body,
             decode_body(ctx->request, corev1::Binding::default_instance(), "v1", "Binding", validation, ctx->warnings));
  const auto binding = std::make_shared<corev1::Binding>(static_cast<const corev1::Binding&>(*body));
  const auto name = top_level ? binding->metadata().name() : ctx->info.name;
  if (!binding->metadata().name().empty() && binding->metadata().name() != name)
    co_return api_fail(bad_request("name in URL does not match name in Binding object"));
  field::ErrorList e;
  if (!binding->target().kind().empty() && binding->target().kind() != "Node")
    e.not_supported(field::Path("target").child("kind"), binding->target().kind(), {"Node", "<empty>"});
  if (binding->target().name().empty()) e.required(field::Path("target").child("name"));
  if (!e.empty()) co_return api_fail(invalid("", "Binding", name, e));

  const auto* pods = core.resources.find("", "v1", "pods");
  const auto now = core.clock.wall();
  const Registry::Edit edit = [binding, pods, now](const Message* current) -> ApiResult<Registry::Object> {
    auto next = clone(*current);
    auto& pod = static_cast<corev1::Pod&>(*next);
    API_CHECK(check_binding(*pods, *binding, pod));
    pod.mutable_spec()->set_nodename(binding->target().name());
    for (const auto& [k, v] : binding->metadata().annotations()) (*pod.mutable_metadata()->mutable_annotations())[k] = v;
    set_condition(pod, "PodScheduled", "True", "", "", now);
    return next;
  };
  auto done = co_await core.registry->update(*pods, ctx->info.ns, name, Registry::Part::internal, edit, options);
  if (!done) co_return api_fail(std::move(done).error());
  co_return plain_response(201, created_status(), "v1", "Status", format);
}

Task<Reply> handle_eviction(Core& core, ContextPtr ctx) {
  API_CO_TRY(auto format, ctx->format());
  format.shape = Shape::object;
  API_CO_TRY(auto options, ctx->write_options());
  API_CO_TRY(const auto validation, ctx->field_validation());
  API_CO_TRY(auto body, decode_body(ctx->request, policyv1::Eviction::default_instance(), "policy/v1", "Eviction", validation,
                                    ctx->warnings));
  const auto& eviction = static_cast<const policyv1::Eviction&>(*body);
  if (!eviction.metadata().name().empty() && eviction.metadata().name() != ctx->info.name)
    co_return api_fail(bad_request("name in URL does not match name in Eviction object"));
  const auto* pods = core.resources.find("", "v1", "pods");
  for (const auto& d : eviction.deleteoptions().dryrun()) options.dry_run = options.dry_run || d == "All";
  // The condition tells the owner why the pod went. (Disruption budgets are not served yet, so nothing can object.)
  if (!options.dry_run) {
    const auto now = core.clock.wall();
    const Registry::Edit mark = [now](const Message* current) -> ApiResult<Registry::Object> {
      auto next = clone(*current);
      auto& pod = static_cast<corev1::Pod&>(*next);
      const auto& phase = pod.status().phase();
      if (phase != "Succeeded" && phase != "Failed")
        set_condition(pod, "DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting", now);
      return next;
    };
    auto marked = co_await core.registry->update(*pods, ctx->info.ns, ctx->info.name, Registry::Part::internal, mark, options);
    if (!marked) co_return api_fail(std::move(marked).error());
  }
  auto how = eviction.deleteoptions();
  auto done = co_await core.registry->remove(*pods, ctx->info.ns, ctx->info.name, how, options);
  if (!done) co_return api_fail(std::move(done).error());
  co_return plain_response(201, created_status(), "v1", "Status", format);
}

// ---- tokens

namespace {

ApiResult<> check_token_request(const authenticationv1::TokenRequest& t) {
  field::ErrorList e;
  const auto path = field::Path("spec").child("expirationSeconds");
  const auto seconds = t.spec().expirationseconds();
  if (seconds < kMinTokenSeconds) e.invalid(path, seconds, "may not specify a duration less than 10 minutes");
  if (seconds > kMaxTokenSeconds) e.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds");
  if (e.empty()) return {};
  return api_fail(invalid("authentication.k8s.io", "TokenRequest", "", e));
}

}  // namespace

Task<Reply> handle_token_request(Core& core, ContextPtr ctx) {
  API_CO_TRY(auto format, ctx->format());
  format.shape = Shape::object;
  if (!core.signer) co_return api_fail(page_not_found());
  API_CO_TRY(const auto validation, ctx->field_validation());
  API_CO_TRY(auto body, decode_body(ctx->request, authenticationv1::TokenRequest::default_instance(), "authentication.k8s.io/v1",
                                    "TokenRequest", validation, ctx->warnings));
  auto& request = static_cast<authenticationv1::TokenRequest&>(*body);
  if (!request.spec().has_expirationseconds()) request.mutable_spec()->set_expirationseconds(kDefaultTokenSeconds);
  if (request.spec().audiences_size() == 0)
    for (const auto& a : core.api_audiences) request.mutable_spec()->add_audiences(a);
  API_CO_CHECK(check_token_request(request));

  auto account = co_await core.registry->get(*ctx->resource, ctx->info.ns, ctx->info.name, "");
  if (!account) co_return api_fail(std::move(account).error());
  const auto& meta = meta_of(**account);

  TokenClaims claims;
  claims.issuer = core.options.service_account_issuer;
  claims.subject = fmt::format("system:serviceaccount:{}:{}", meta.namespace_(), meta.name());
  claims.ns = meta.namespace_();
  claims.service_account = meta.name();
  claims.service_account_uid = meta.uid();
  claims.audiences.assign(request.spec().audiences().begin(), request.spec().audiences().end());
  claims.id = random_uuid(core.random);
  if (request.spec().has_boundobjectref()) {
    const auto& ref = request.spec().boundobjectref();
    const bool pod = ref.kind() == "Pod", secret = ref.kind() == "Secret", node = ref.kind() == "Node";
    if (!pod && !secret && !node) co_return api_fail(bad_request(fmt::format("cannot bind token for serviceaccount \"{}\" to object of type {}", meta.name(), ref.kind())));
    const auto* bound_resource = core.resources.find("", "v1", pod ? "pods" : secret ? "secrets" : "nodes");
    auto bound = co_await core.registry->get(*bound_resource, ctx->info.ns, ref.name(), "");
    if (!bound) co_return api_fail(std::move(bound).error());
    const auto& bound_meta = meta_of(**bound);
    if (!ref.uid().empty() && ref.uid() != bound_meta.uid())
      co_return api_fail(conflict(*bound_resource->kind, ref.name(),
                                  fmt::format("the UID in the bound object reference ({}) does not match the UID in record. The "
                                              "object might have been deleted and then recreated",
                                              ref.uid())));
    if (pod) {
      const auto& p = static_cast<const corev1::Pod&>(**bound);
      if (p.spec().serviceaccountname() != meta.name())
        co_return api_fail(bad_request(fmt::format("cannot bind token for serviceaccount \"{}\" to pod running with different "
                                                   "serviceaccount name.",
                                                   meta.name())));
      claims.pod = bound_meta.name();
      claims.pod_uid = bound_meta.uid();
      claims.node = p.spec().nodename();
    } else if (secret) {
      claims.secret = bound_meta.name();
      claims.secret_uid = bound_meta.uid();
    } else {
      claims.node = bound_meta.name();
      claims.node_uid = bound_meta.uid();
    }
  }
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(core.clock.wall().time_since_epoch()).count();
  const auto asked = request.spec().expirationseconds();
  claims.issued_at = claims.not_before = now;
  claims.expires_at = now + (asked == kPodTokenSeconds && !claims.pod.empty() ? kExtendedTokenSeconds : asked);
  auto token = core.signer->sign(claims);
  if (!token) co_return api_fail(from_error(token.error()));

  auto& out_meta = *request.mutable_metadata();
  out_meta.set_name(meta.name());
  out_meta.set_namespace_(meta.namespace_());
  *out_meta.mutable_creationtimestamp() = to_time(core.clock.wall());
  request.mutable_status()->set_token(*token);
  request.mutable_status()->mutable_expirationtimestamp()->set_seconds(now + asked);
  co_return plain_response(201, request, "authentication.k8s.io/v1", "TokenRequest", format);
}

}  // namespace fairlead::apiserver
