// resolv.conf(5) as the DNS part of a result: nameserver, domain, search, options. The last domain and search line count;
// comments and what is not known are skipped. Pure.
#pragma once

#include "cni/result.h"

namespace fairlead::cni {
Dns parse_resolv_conf(std::string_view text);
}
