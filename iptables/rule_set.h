// Keeping a small, wholly known RuleSet in the kernel: the base of the iptables dataplane, and the helper rules of the ipvs dataplane.
// diff() is pure. Chains that `owns` claims and that the set does not have are deleted; in everybody else's chains only
// rules that jump into ours are looked at: those that the set does not have go, those that it lacks come to the head, in order.
// Errors: of the kernel, with the family; nothing is remembered, so calling again is always right.
#pragma once

#include "iptables/kernel.h"
#include "iptables/model.h"

namespace fairlead::iptables {

Changes diff(const Listings& observed, const RuleSet& desired, Family family, const Owns& owns);
// Reads, compares, writes the difference. Returns how much was written.
Result<std::size_t> sync(Kernel& kernel, Family family, const RuleSet& desired, const Owns& owns);

// Parts of diff(), for who has more chains than a RuleSet lists.
// True if the chain holds exactly these rules, whatever the habits of the tool that printed them.
bool same_rules(const ListedChain& observed, const std::vector<std::string>& desired, Family family);
void diff_hooks(const Listings& observed, const std::vector<Hook>& desired, Family family, const Owns& owns, Changes& out);

}  // namespace fairlead::iptables
