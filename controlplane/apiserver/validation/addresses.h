// Addresses that may stand in services and endpoints. Pure.
#pragma once

#include "base/ip.h"
#include "controlplane/apiserver/validation/field.h"

namespace fairlead::apiserver {

// A valid address that is not unspecified, loopback, link-local or link-local multicast.
void check_endpoint_ip(const std::string& text, const field::Path& at, field::ErrorList& out);

}  // namespace fairlead::apiserver
