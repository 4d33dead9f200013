// Kinds that are questions: may I (SubjectAccessReview and its kin), who am I (SelfSubjectReview), whose token is this
// (TokenReview). They are answered and never stored.
#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/handlers/context.h"
#include "kube/kinds.h"
#include "kube/proto/authentication/v1.pb.h"
#include "kube/proto/authorization/v1.pb.h"

namespace fairlead::apiserver {
namespace {

template <typename T>
void fill_user(const User& u, T& out) {
  out.set_username(u.name);
  if (!u.uid.empty()) out.set_uid(u.uid);
  for (const auto& g : u.groups) out.add_groups(g);
  for (const auto& [k, values] : u.extra)
    for (const auto& v : values) (*out.mutable_extra())[k].add_items(v);
}

template <typename Spec>
ApiResult<Attributes> attributes_from(const Spec& spec, std::string_view kind) {
  field::ErrorList e;
  if (spec.has_resourceattributes() == spec.has_nonresourceattributes()) {
    e.invalid_json(field::Path("spec").child("nonResourceAttributes"), "null",
                   "exactly one of nonResourceAttributes or resourceAttributes must be specified");
    return api_fail(invalid("authorization.k8s.io", kind, "", e));
  }
  Attributes a;
  if (spec.has_nonresourceattributes()) {
    a.path = spec.nonresourceattributes().path();
    a.verb = spec.nonresourceattributes().verb();
    return a;
  }
  const auto& r = spec.resourceattributes();
  a.is_resource = true;
  a.verb = r.verb();
  a.group = r.group();
  a.resource = r.resource();
  a.subresource = r.subresource();
  a.ns = r.namespace_();
  a.name = r.name();
  return a;
}

void answer(const Core& core, const User& user, const Attributes& a, authorizationv1::SubjectAccessReviewStatus& out) {
  const auto d = core.authorizer->authorize(user, a);
  out.set_allowed(d.allowed);
  if (!d.reason.empty()) out.set_reason(d.reason);
}

template <typename Spec>
User user_from(const Spec& spec) {
  User u{spec.user(), spec.uid(), {spec.groups().begin(), spec.groups().end()}, {}};
  return u;
}

ApiResult<> answer_subject(const Core& core, authorizationv1::SubjectAccessReviewSpec spec, std::string_view kind,
                           authorizationv1::SubjectAccessReviewStatus& out) {
  API_TRY(const auto a, attributes_from(spec, kind));
  if (spec.user().empty() && spec.groups_size() == 0) {
    field::ErrorList e;
    e.invalid(field::Path("spec").child("user"), "", "at least one of user or group must be specified");
    return api_fail(invalid("authorization.k8s.io", kind, "", e));
  }
  answer(core, user_from(spec), a, out);
  return {};
}

void review_token(const Core& core, authenticationv1::TokenReview& review) {
  const std::vector<std::string> audiences(review.spec().audiences().begin(), review.spec().audiences().end());
  auto found = core.authenticator->token_user(review.spec().token(), audiences);
  auto& status = *review.mutable_status();
  if (!found) {
    status.set_authenticated(false);
    status.set_error(found.error().message);
    return;
  }
  status.set_authenticated(true);
  fill_user(found->first, *status.mutable_user());
  for (const auto& a : found->second) status.add_audiences(a);
}

ApiResult<> fill_review(const Core& core, const RequestContext& ctx, Message& m) {
  if (auto* r = dynamic_cast<authorizationv1::SelfSubjectAccessReview*>(&m)) {
    API_TRY(const auto a, attributes_from(r->spec(), "SelfSubjectAccessReview"));
    answer(core, ctx.user, a, *r->mutable_status());
    return {};
  }
  if (auto* r = dynamic_cast<authorizationv1::SubjectAccessReview*>(&m))
    return answer_subject(core, r->spec(), "SubjectAccessReview", *r->mutable_status());
  if (auto* r = dynamic_cast<authorizationv1::LocalSubjectAccessReview*>(&m)) {
    if (r->spec().resourceattributes().namespace_() != ctx.info.ns) {
      field::ErrorList e;
      e.invalid(field::Path("spec.resourceAttributes.namespace"), r->spec().resourceattributes().namespace_(),
                "must match metadata.namespace");
      return api_fail(invalid("authorization.k8s.io", "LocalSubjectAccessReview", "", e));
    }
    return answer_subject(core, r->spec(), "LocalSubjectAccessReview", *r->mutable_status());
  }
  if (auto* r = dynamic_cast<authorizationv1::SelfSubjectRulesReview*>(&m)) {
    // The table of roles is not written as rules of namespaces, so the list is said to be incomplete.
    auto& status = *r->mutable_status();
    if (ctx.user.in_group(kMasters)) {
      auto& rule = *status.add_resourcerules();
      rule.add_verbs("*");
      rule.add_apigroups("*");
      rule.add_resources("*");
      auto& paths = *status.add_nonresourcerules();
      paths.add_verbs("*");
      paths.add_nonresourceurls("*");
    } else {
      status.set_incomplete(true);
    }
    return {};
  }
  if (auto* r = dynamic_cast<authenticationv1::SelfSubjectReview*>(&m)) {
    fill_user(ctx.user, *r->mutable_status()->mutable_userinfo());
    return {};
  }
  if (auto* r = dynamic_cast<authenticationv1::TokenReview*>(&m)) {
    if (r->spec().token().empty()) {
      field::ErrorList e;
      e.required(field::Path("spec").child("token"), "token is required for TokenReview in authentication");
      return api_fail(invalid("authentication.k8s.io", "TokenReview", "", e));
    }
    review_token(core, *r);
    return {};
  }
  return api_fail(page_not_found());
}

}  // namespace

bool is_review(const RequestInfo& info) {
  if (info.group != "authorization.k8s.io" && info.group != "authentication.k8s.io") return false;
  return kube::find_resource(info.group, info.version, info.resource) != nullptr;
}

Task<Reply> handle_review(Core& core, ContextPtr ctx) {
  const auto& kind = *kube::find_resource(ctx->info.group, ctx->info.version, ctx->info.resource);
  if (ctx->info.verb != "create") co_return api_fail(method_not_allowed(kind, ctx->info.verb));
  API_CO_TRY(auto format, ctx->format());
  format.shape = Shape::object;
  API_CO_TRY(const auto validation, ctx->field_validation());
  API_CO_TRY(auto body, decode_body(ctx->request, *kind.prototype, kind.api_version(), kind.kind, validation, ctx->warnings));
  API_CO_CHECK(fill_review(core, *ctx, *body));
  *mutable_meta_of(*body).mutable_creationtimestamp() = to_time(core.clock.wall());
  co_return plain_response(201, *body, kind.api_version(), kind.kind, format);
}

}  // namespace fairlead::apiserver
