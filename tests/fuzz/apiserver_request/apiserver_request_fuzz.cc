// Any text where a client speaks first: request target, Accept header, bearer token, continue token, token file.
#include "controlplane/apiserver/auth/authenticator.h"
#include "controlplane/apiserver/auth/jwt.h"
#include "controlplane/apiserver/discovery.h"
#include "controlplane/apiserver/negotiation.h"
#include "controlplane/apiserver/registry/continue_token.h"
#include "controlplane/apiserver/request_info.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::apiserver;

void fuzz_one(std::string_view bytes) {
  if (const auto target = http::Target::parse(bytes)) {
    const auto info = parse_request_info("GET", *target);
    if (info.is_resource) FUZZ_CHECK(!info.resource.empty() && !info.verb.empty(), info.path);
  }
  if (const auto f = negotiate(bytes, {})) FUZZ_CHECK(!content_type(*f, true).empty(), "an encoding");
  (void)wants_aggregated(bytes);
  constexpr std::string_view prefix = "/registry/pods/";
  if (const auto token = decode_continue(bytes, prefix)) FUZZ_CHECK(token->after_key.starts_with(prefix), token->after_key);
  static const auto verifier = TokenVerifier::create({}, "issuer");
  FUZZ_CHECK(!(*verifier)->verify(bytes, WallTime()).has_value(), "without a key no token is good");
  (void)(*verifier)->claims_our_issuer(bytes);
  if (const auto decoded = base64url_decode(bytes)) FUZZ_CHECK(base64url_decode(base64url(*decoded)) == *decoded, "base64url");
  Authenticator::Config config;
  config.token_file_text = bytes;
  (void)Authenticator::create(std::move(config));
}
