// Formats of names and short strings. Each check returns the complaints (none: valid), worded as Kubernetes words them
// (apimachinery/pkg/util/validation); the caller attaches the field. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fairlead::apiserver {

using Complaints = std::vector<std::string>;

Complaints check_dns1123_label(std::string_view v);
Complaints check_dns1123_subdomain(std::string_view v);
Complaints check_dns1035_label(std::string_view v);
Complaints check_qualified_name(std::string_view v);   // "prefix/Name": label and annotation keys, resource names
Complaints check_label_value(std::string_view v);
Complaints check_port_number(std::int64_t port);       // 1-65535
Complaints check_port_name(std::string_view v);        // IANA service name: at most 15 characters
Complaints check_env_var_name(std::string_view v);
Complaints check_config_key(std::string_view v);       // keys of ConfigMap and Secret
Complaints check_path_segment(std::string_view v);     // names that stand in a URL path
Complaints check_ip(std::string_view v);
Complaints check_cidr(std::string_view v);              // without host bits
Complaints check_wildcard_subdomain(std::string_view v);  // "*.example.com"
Complaints check_fully_qualified_domain(std::string_view v);  // finalizers and the like

// A name that may be completed by a suffix: a trailing dash is masked before the check.
std::string mask_trailing_dash(std::string_view v);

}  // namespace fairlead::apiserver
