// Annotations with the prefix nginx.ingress.kubernetes.io/ as values. Total: what cannot be understood becomes a diagnostic and
// has no effect, except that an annotation which protects (authentication, allow and deny lists, limits) and cannot be
// understood closes the route (Policy::refuse). One that is known but whose effect is not built says so. Snippets are refused.
// Pure. Source: ingress-nginx docs/user-guide/nginx-configuration/annotations.md, annotations-risk.md.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "ingress/core/diagnostic.h"
#include "ingress/core/policy.h"

namespace fairlead::ingress {

inline constexpr std::string_view kAnnotationPrefix = "nginx.ingress.kubernetes.io/";

// `ns` and `object` ("Ingress ns/name") stand in references to secrets and in diagnostics.
Policy parse_annotations(const std::map<std::string, std::string>& annotations, const std::string& ns, const std::string& object,
                         Diagnostics& out);

Result<std::uint64_t> parse_size(std::string_view text);       // "8", "8k", "1m", "2g"
Result<Template> parse_template(std::string_view text, bool captures);

}  // namespace fairlead::ingress
