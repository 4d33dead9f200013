#include "controlplane/apiserver/validation/names.h"

#include <fmt/core.h>

#include "base/ip.h"

namespace fairlead::apiserver {
namespace {

bool lower(char c) { return c >= 'a' && c <= 'z'; }
bool digit(char c) { return c >= '0' && c <= '9'; }
bool alpha(char c) { return lower(c) || (c >= 'A' && c <= 'Z'); }
bool lower_alnum(char c) { return lower(c) || digit(c); }
bool alnum(char c) { return alpha(c) || digit(c); }

constexpr std::string_view kLabel = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
constexpr std::string_view kQualified = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

bool is_label(std::string_view v) {
  if (v.empty() || !lower_alnum(v.front()) || !lower_alnum(v.back())) return false;
  for (const char c : v)
    if (!lower_alnum(c) && c != '-') return false;
  return true;
}

bool is_subdomain(std::string_view v) {
  while (true) {
    const auto dot = v.find('.');
    if (!is_label(v.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    v.remove_prefix(dot + 1);
  }
}

bool is_qualified_part(std::string_view v) {
  if (v.empty() || !alnum(v.front()) || !alnum(v.back())) return false;
  for (const char c : v)
    if (!alnum(c) && c != '-' && c != '_' && c != '.') return false;
  return true;
}

std::string max_length(std::size_t n) { return fmt::format("must be no more than {} characters", n); }

std::string subdomain_complaint() {
  return fmt::format(
      "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
      "with an alphanumeric character (e.g. 'example.com', regex used for validation is '{0}(\\.{0})*')",
      kLabel);
}

std::string qualified_complaint() {
  return fmt::format(
      "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
      "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{}')",
      kQualified);
}

}  // namespace

Complaints check_dns1123_label(std::string_view v) {
  Complaints out;
  if (v.size() > 63) out.push_back(max_length(63));
  if (!is_label(v)) {
    out.push_back(is_subdomain(v)
                      ? "must not contain dots"
                      : fmt::format("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
                                    "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for "
                                    "validation is '{}')",
                                    kLabel));
  }
  return out;
}

Complaints check_dns1123_subdomain(std::string_view v) {
  Complaints out;
  if (v.size() > 253) out.push_back(max_length(253));
  if (!is_subdomain(v)) out.push_back(subdomain_complaint());
  return out;
}

Complaints check_dns1035_label(std::string_view v) {
  Complaints out;
  if (v.size() > 63) out.push_back(max_length(63));
  if (!is_label(v) || !lower(v.front()))
    out.push_back(
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end "
        "with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
        "'[a-z]([-a-z0-9]*[a-z0-9])?')");
  return out;
}

Complaints check_qualified_name(std::string_view v) {
  Complaints out;
  auto name = v;
  if (const auto slash = v.find('/'); slash != std::string_view::npos) {
    const auto prefix = v.substr(0, slash);
    name = v.substr(slash + 1);
    if (name.find('/') != std::string_view::npos) {
      out.push_back(
          fmt::format("a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
                      "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{}') with an "
                      "optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                      kQualified));
      return out;
    }
    if (prefix.empty())
      out.push_back("prefix part must be non-empty");
    else
      for (const auto& c : check_dns1123_subdomain(prefix)) out.push_back("prefix part " + c);
  }
  if (name.empty())
    out.push_back("name part must be non-empty");
  else if (name.size() > 63)
    out.push_back("name part " + max_length(63));
  if (!is_qualified_part(name)) out.push_back(qualified_complaint());
  return out;
}

Complaints check_label_value(std::string_view v) {
  Complaints out;
  if (v.size() > 63) out.push_back(max_length(63));
  if (!v.empty() && !is_qualified_part(v))
    out.push_back(
        fmt::format("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
                    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
                    "'({})?')",
                    kQualified));
  return out;
}

Complaints check_port_number(std::int64_t port) {
  if (port >= 1 && port <= 65535) return {};
  return {"must be between 1 and 65535, inclusive"};
}

Complaints check_port_name(std::string_view v) {
  Complaints out;
  if (v.size() > 15) out.push_back(max_length(15));
  bool charset = !v.empty(), letter = false;
  for (const char c : v) {
    charset = charset && (lower_alnum(c) || c == '-');
    letter = letter || lower(c);
  }
  if (!charset) out.push_back("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
  if (!letter) out.push_back("must contain at least one letter (a-z)");
  if (v.find("--") != std::string_view::npos) out.push_back("must not contain consecutive hyphens");
  if (!v.empty() && (v.front() == '-' || v.back() == '-')) out.push_back("must not begin or end with a hyphen");
  return out;
}

Complaints check_env_var_name(std::string_view v) {
  // Since 1.32 (RelaxedEnvironmentVariableValidation): every printable ASCII character but "=".
  for (const char c : v)
    if (c < 0x20 || c > 0x7e || c == '=')
      return {"a valid environment variable name must consist only of printable ASCII characters other than '='"};
  return {};
}

Complaints check_config_key(std::string_view v) {
  Complaints out;
  if (v.size() > 253) out.push_back(max_length(253));
  bool ok = !v.empty();
  for (const char c : v) ok = ok && (alnum(c) || c == '-' || c == '_' || c == '.');
  if (!ok)
    out.push_back(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
        "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')");
  if (v == ".")
    out.push_back("must not be '.'");
  else if (v == "..")
    out.push_back("must not be '..'");
  else if (v.starts_with(".."))
    out.push_back("must not start with '..'");
  return out;
}

Complaints check_path_segment(std::string_view v) {
  if (v == "." || v == "..") return {fmt::format("may not be '{}'", v)};
  for (const char c : {'/', '%'})
    if (v.find(c) != std::string_view::npos) return {fmt::format("may not contain '{}'", c)};
  return {};
}

Complaints check_ip(std::string_view v) {
  if (IpAddress::parse(v)) return {};
  return {"must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"};
}

Complaints check_cidr(std::string_view v) {
  const auto parsed = v.find('/') == std::string_view::npos ? Result<InterfaceAddress>(fail(ErrorCode::invalid_argument, "no prefix"))
                                                            : InterfaceAddress::parse(v);
  if (!parsed) return {"must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"};
  if (parsed->address != parsed->prefix().first()) return {"must not have bits set beyond the prefix length"};
  return {};
}

Complaints check_wildcard_subdomain(std::string_view v) {
  Complaints out;
  if (v.size() > 253) out.push_back(max_length(253));
  if (!v.starts_with("*.") || !is_subdomain(v.substr(2)))
    out.push_back(
        fmt::format("a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
                    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', "
                    "regex used for validation is '\\*\\.{0}(\\.{0})*')",
                    kLabel));
  return out;
}

Complaints check_fully_qualified_domain(std::string_view v) {
  auto out = check_dns1123_subdomain(v);
  if (out.empty() && v.find('.') == std::string_view::npos)
    out.push_back("should be a domain with at least two segments separated by dots");
  return out;
}

std::string mask_trailing_dash(std::string_view v) {
  std::string s(v);
  if (s.size() > 1 && s.back() == '-') s.replace(s.size() - 2, 2, "a");
  return s;
}

}  // namespace fairlead::apiserver
