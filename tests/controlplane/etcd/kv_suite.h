// The conformance suite: what every implementation of Kv must do, as functions over the interface. Each case works under a
// key prefix of its own and with relative revisions, so that the whole suite can run on one server that has other data.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/etcd/kv.h"

namespace fairlead::etcd {

struct KvCase {
  const char* name;
  void (*run)(Kv& kv, const std::string& prefix);
  // Not empty: etcd 3.4 itself fails here, for this reason.
  const char* broken_in_etcd_34 = "";
};
const std::vector<KvCase>& kv_cases();

// Registers one test for each case. `open` is called for each of them and may give the same Kv again.
void register_kv_suite(const std::string& suite, std::function<std::shared_ptr<Kv>()> open, bool etcd_34 = false);

}  // namespace fairlead::etcd
