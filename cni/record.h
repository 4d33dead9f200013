// What an attachment owns outside its links and leases, written into the lease store before it is made: host ports,
// masquerading, a hosts file. DEL and GC read it, because a runtime need not repeat its configuration. JSON, for people
// who look. Pure.
#pragma once

#include <string>
#include <vector>

#include "cni/nat/layout.h"

namespace fairlead::cni {

struct AttachmentRecord {
  PodNat nat;
  std::string hosts_file;   // empty: none
  std::string delegated;    // what the IPAM plugin printed: its CHECK compares with that, and ours may be of another shape
  bool empty() const { return nat.empty() && hosts_file.empty() && delegated.empty(); }
  bool operator==(const AttachmentRecord&) const = default;
};
std::string to_text(const AttachmentRecord& r);  // "" when it is empty
CniResult<AttachmentRecord> parse_record(std::string_view text);

}  // namespace fairlead::cni
