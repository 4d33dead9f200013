#include "controlplane/apiserver/registry/continue_token.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/auth/jwt.h"

namespace fairlead::apiserver {
namespace json = boost::json;

std::string encode_continue(std::int64_t revision, std::string_view last_key, std::string_view prefix) {
  std::string start(last_key.substr(prefix.size()));
  start += '\0';
  const json::object o = {{"v", "meta.k8s.io/v1"}, {"rv", revision}, {"start", start}};
  return base64url(json::serialize(o));
}

Result<ContinueToken> decode_continue(std::string_view token, std::string_view prefix) {
  const auto malformed = [](std::string_view why) { return fail(ErrorCode::invalid_argument, "continue key is not valid: {}", why); };
  auto text = base64url_decode(token);
  if (!text) return malformed(text.error().message);
  boost::system::error_code ec;
  const auto v = json::parse(*text, ec);
  const auto* o = v.if_object();
  if (ec || !o) return malformed("not JSON");
  const auto* version = o->if_contains("v");
  const auto* rv = o->if_contains("rv");
  const auto* start = o->if_contains("start");
  if (!version || !version->is_string() || version->get_string() != "meta.k8s.io/v1") return malformed("unknown version");
  if (!rv || !rv->is_int64() || rv->get_int64() == 0) return malformed("no revision");
  if (!start || !start->is_string() || start->get_string().empty()) return malformed("no start");
  std::string_view after(start->get_string());
  // A start that climbs out of the collection would read another one.
  if (after.find("..") != std::string_view::npos || after.front() == '/') return malformed("start is outside of the collection");
  if (after.back() == '\0') after.remove_suffix(1);
  return ContinueToken{rv->get_int64(), std::string(prefix) + std::string(after)};
}

}  // namespace fairlead::apiserver
