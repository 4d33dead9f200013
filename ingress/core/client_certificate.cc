#include "ingress/core/client_certificate.h"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>

#include "base/http/message.h"

namespace fairlead::ingress {
namespace {

ClientJudgement refuse(unsigned status, const char* why) { return {Reply{status, {}, fmt::format("{} {}: {}\n", status, http::reason_phrase(status), why)}, why}; }

// The certificate is missing or bad: the page that explains it, or 400.
ClientJudgement bad_certificate(const ClientAuth& auth, const char* why) {
  if (auth.error_page.empty()) return refuse(400, why);
  return {Reply{302, {{"Location", auth.error_page}}, "302 Found\n"}, why};
}

bool name_matches(const ClientAuth& auth, const ClientIdentity* identity) {
  if (!auth.match_cn) return true;
  return identity && std::any_of(identity->common_names.begin(), identity->common_names.end(), [&](const auto& cn) { return re2::RE2::FullMatch(cn, *auth.match_cn); });
}

}  // namespace

ClientJudgement judge_client(const ClientAuth& auth, bool https, std::string_view server_name, const ClientIdentity* identity, std::string_view host) {
  if (!auth.authorities) return refuse(503, "client certificates cannot be checked");
  const bool optional = auth.verify == VerifyClient::optional || auth.verify == VerifyClient::optional_no_ca;
  if (https) {
    if (server_name != host) return refuse(421, "the connection is for another host");
    if (!identity || identity->serial != auth.serial) return refuse(421, "the connection was opened before certificates were asked for as they are now");
  }
  const auto* shown = https && identity && identity->present ? identity : nullptr;
  if (!shown && !optional) return bad_certificate(auth, "no client certificate was sent");
  if (shown && shown->error != 0 && !(auth.verify == VerifyClient::optional_no_ca && shown->unknown_authority)) return bad_certificate(auth, "the client certificate is not accepted");
  if (!name_matches(auth, shown)) return refuse(403, "the client certificate is for somebody else");
  return {};
}

HeaderList client_headers(const ClientAuth& auth, const ClientIdentity* identity) {
  HeaderList out;
  if (!identity || !identity->present) {
    out.emplace_back("ssl-client-verify", "NONE");
    return out;
  }
  out.emplace_back("ssl-client-verify", identity->error == 0 ? "SUCCESS" : "FAILED:" + identity->problem);
  out.emplace_back("ssl-client-subject-dn", identity->subject);
  out.emplace_back("ssl-client-issuer-dn", identity->issuer);
  if (auth.pass_certificate) out.emplace_back("ssl-client-cert", identity->escaped_pem);
  return out;
}

}  // namespace fairlead::ingress
