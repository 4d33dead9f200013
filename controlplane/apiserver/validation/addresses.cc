#include "controlplane/apiserver/validation/addresses.h"

#include "controlplane/apiserver/validation/names.h"

namespace fairlead::apiserver {

void check_endpoint_ip(const std::string& text, const field::Path& at, field::ErrorList& out) {
  const auto ip = IpAddress::parse(text);
  if (!ip) {
    for (const auto& c : check_ip(text)) out.invalid(at, text, c);
    return;
  }
  if (ip->is_unspecified()) out.invalid(at, text, "may not be unspecified (0.0.0.0 or ::)");
  if (ip->is_loopback()) out.invalid(at, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
  if (ip->is_link_local()) out.invalid(at, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
  const auto b = ip->bytes();
  const bool link_local_multicast = ip->is_v4() ? b[0] == 224 && b[1] == 0 && b[2] == 0 : b[0] == 0xff && (b[1] & 0x0f) == 0x02;
  if (link_local_multicast) out.invalid(at, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
}

}  // namespace fairlead::apiserver
