#include "iptables/rule_set.h"

#include <algorithm>

#include "iptables/rule.h"

namespace fairlead::iptables {

bool same_rules(const ListedChain& observed, const std::vector<std::string>& desired, Family family) {
  return std::equal(observed.rules.begin(), observed.rules.end(), desired.begin(), desired.end(),
                    [&](std::string_view have, const std::string& want) { return have == want || canonical(have, family) == want; });
}

void diff_hooks(const Listings& observed, const std::vector<Hook>& desired, Family family, const Owns& owns, Changes& out) {
  // Per foreign chain, which of our hooks stands where; others' rules are "none".
  constexpr std::size_t none = ~std::size_t{0};
  std::map<ChainId, std::vector<std::size_t>> places;
  std::vector<bool> present(desired.size());
  for (const auto& [table, listing] : observed)
    for (const auto& [name, chain] : listing.chains()) {
      if (owns(table, name)) continue;
      auto& place = places[{table, std::string(name)}];
      for (const auto rule : chain.rules) {
        std::size_t i = 0;
        while (i < desired.size() && (present[i] || desired[i].table != table || desired[i].chain != name ||
                                      (desired[i].rule != rule && desired[i].rule != canonical(rule, family))))
          ++i;
        const bool found = i < desired.size();
        if (found) present[i] = true;
        else if (owns(table, target_of(rule))) out.remove(table, name, rule);
        place.push_back(found ? i : none);
      }
    }
  // A missing one goes behind its predecessor, the first one to the head.
  for (std::size_t i = 0; i < desired.size(); ++i) {
    if (present[i]) continue;
    auto& place = places[{desired[i].table, desired[i].chain}];
    std::size_t at = 0;
    for (std::size_t j = 0; j < place.size(); ++j)
      if (place[j] != none && place[j] < i) at = j + 1;
    place.insert(place.begin() + static_cast<std::ptrdiff_t>(at), i);
    out.insert(desired[i].table, desired[i].chain, at + 1, desired[i].rule);
  }
}

Changes diff(const Listings& observed, const RuleSet& desired, Family family, const Owns& owns) {
  Changes out;
  for (const auto& [id, rules] : desired.chains) {
    const auto table = observed.find(id.table);
    const auto* have = table == observed.end() ? nullptr : table->second.find(id.name);
    if (!have || !same_rules(*have, rules, family)) out.write_chain(id.table, id.name, rules);
  }
  for (const auto& id : desired.shared) {
    const auto table = observed.find(id.table);
    if (table == observed.end() || !table->second.find(id.name)) out.write_chain(id.table, id.name, {});
  }
  diff_hooks(observed, desired.hooks, family, owns, out);
  for (const auto& [table, listing] : observed)
    for (const auto& [name, chain] : listing.chains())
      if (!chain.builtin && owns(table, name) && !desired.chains.contains({table, std::string(name)})) out.delete_chain(table, std::string(name));
  return out;
}

Result<std::size_t> sync(Kernel& kernel, Family family, const RuleSet& desired, const Owns& owns) {
  FL_TRY_CTX(const auto observed, save_all(kernel, family), "{}", fairlead::to_string(family));
  const auto changes = diff(observed, desired, family, owns);
  if (changes.empty()) return 0;
  FL_CHECK_CTX(kernel.restore(family, changes.text()), "{}", fairlead::to_string(family));
  return changes.size();
}

}  // namespace fairlead::iptables
