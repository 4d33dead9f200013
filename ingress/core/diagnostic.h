// What compile() has to say about an object: shown as a log line, an Event, a metric and a line of `ingress check`. A
// diagnostic never stops anything: what it is about is left out, everything else is served.
#pragma once

#include <compare>
#include <string>
#include <string_view>
#include <vector>

namespace fairlead::ingress {

enum class Severity { info, warning, error };
std::string_view to_string(Severity s);

struct Diagnostic {
  Severity severity = Severity::warning;
  std::string object;   // "Ingress default/web"
  std::string field;    // "spec.rules[0].http.paths[1].path", "metadata.annotations[...]"
  std::string reason;   // CamelCase, as Events have it: UnknownAnnotation, InvalidPath
  std::string message;
  std::string text() const;  // "Ingress default/web: spec.rules[0]...: message"
  auto operator<=>(const Diagnostic&) const = default;
};
using Diagnostics = std::vector<Diagnostic>;

}  // namespace fairlead::ingress
