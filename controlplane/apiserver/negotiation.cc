#include "controlplane/apiserver/negotiation.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <vector>

#include "base/text.h"

namespace fairlead::apiserver {
namespace {

constexpr std::string_view kAll = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

struct Clause {
  std::string type;
  std::map<std::string, std::string> params;
  double q = 1;
};

std::vector<std::string_view> split(std::string_view s, char by) {
  std::vector<std::string_view> out;
  while (true) {
    const auto at = s.find(by);
    out.push_back(trim(s.substr(0, at)));
    if (at == std::string_view::npos) return out;
    s.remove_prefix(at + 1);
  }
}

std::vector<Clause> parse_accept(std::string_view accept) {
  std::vector<Clause> out;
  for (const auto part : split(accept, ',')) {
    if (part.empty()) continue;
    const auto pieces = split(part, ';');
    Clause c;
    c.type = pieces[0];
    for (std::size_t i = 1; i < pieces.size(); ++i) {
      const auto eq = pieces[i].find('=');
      if (eq == std::string_view::npos) continue;
      auto value = trim(pieces[i].substr(eq + 1));
      if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
      c.params.emplace(trim(pieces[i].substr(0, eq)), value);
    }
    if (const auto q = c.params.find("q"); q != c.params.end()) c.q = std::strtod(q->second.c_str(), nullptr);
    out.push_back(std::move(c));
  }
  std::stable_sort(out.begin(), out.end(), [](const Clause& a, const Clause& b) { return a.q > b.q; });
  return out;
}

std::optional<Encoding> encoding_of(std::string_view type, const Offers& offers) {
  if (type == "application/json" || type == "application/*" || type == "*/*") return Encoding::json;
  if (offers.yaml && type == "application/yaml") return Encoding::yaml;
  if (offers.protobuf && type == "application/vnd.kubernetes.protobuf") return Encoding::protobuf;
  return std::nullopt;
}

std::optional<Format> accept_clause(const Clause& c, const Offers& offers) {
  if (c.q <= 0) return std::nullopt;
  const auto encoding = encoding_of(c.type, offers);
  if (!encoding) return std::nullopt;
  Format f;
  f.encoding = *encoding;
  const auto param = [&](const char* name) {
    const auto it = c.params.find(name);
    return it == c.params.end() ? std::string_view{} : std::string_view(it->second);
  };
  if (const auto as = param("as"); !as.empty()) {
    const auto version = param("v");
    if (!offers.shapes || param("g") != "meta.k8s.io" || (version != "v1" && version != "v1beta1")) return std::nullopt;
    f.meta_version = version;
    if (as == "Table") {
      if (f.encoding == Encoding::protobuf) return std::nullopt;  // has no protobuf form
      f.shape = Shape::table;
    } else if (as == "PartialObjectMetadata" || as == "PartialObjectMetadataList") {
      f.shape = Shape::partial;
    } else {
      return std::nullopt;
    }
  }
  f.pretty = param("pretty") == "1" || param("pretty") == "true";
  return f;
}

}  // namespace

ApiResult<Format> negotiate(std::string_view accept, const Offers& offers) {
  if (trim(accept).empty()) return Format{};
  for (const auto& clause : parse_accept(accept))
    if (auto f = accept_clause(clause, offers)) return *f;
  return api_fail(not_acceptable(kAll));
}

std::string content_type(const Format& format, bool stream) {
  std::string out;
  switch (format.encoding) {
    case Encoding::json: out = "application/json"; break;
    case Encoding::yaml: out = "application/yaml"; break;
    case Encoding::protobuf: out = "application/vnd.kubernetes.protobuf"; break;
  }

  if (stream) out += format.encoding == Encoding::json ? "" : ";stream=watch";
  return out;
}

std::string_view media_type(std::string_view content_type) { return trim(content_type.substr(0, content_type.find(';'))); }

ApiResult<Encoding> body_encoding(std::string_view content_type) {
  const auto type = media_type(content_type);
  if (type.empty() || type == "application/json") return Encoding::json;
  if (type == "application/yaml") return Encoding::yaml;
  if (type == "application/vnd.kubernetes.protobuf") return Encoding::protobuf;
  return api_fail(unsupported_media_type(kAll));
}

}  // namespace fairlead::apiserver
