// Bandwidth.
#include "cni/kernel/netlink_kernel.h"

namespace fairlead::cni {

CniResult<> NetlinkKernel::apply_one(const LimitToPod& s) {
  CNI_TRY(const std::uint32_t index, index_of(s.link));
  return done(host_.add_tbf(index, {.rate = s.limit.rate, .burst = s.limit.burst}));
}

CniResult<> NetlinkKernel::apply_one(const LimitFromPod& s) {
  netlink::LinkSpec spec{.name = s.ifb, .kind = netlink::IfbKind{}, .up = true};
  if (s.mtu != 0) spec.mtu = s.mtu;
  CNI_CHECK(done(host_.create_link(spec)));
  CNI_TRY(const std::uint32_t ifb, index_of(s.ifb));
  CNI_CHECK(done(host_.add_tbf(ifb, {.rate = s.limit.rate, .burst = s.limit.burst})));
  CNI_TRY(const std::uint32_t index, index_of(s.link));
  return done(host_.add_redirect(index, ifb));
}

}  // namespace fairlead::cni
