// The strategies, one per kind. make_strategy() finds the one of a kind; a kind without special rules gets the plain one.
#pragma once

#include <memory>

#include "controlplane/apiserver/registry/strategy.h"
#include "kube/kinds.h"

namespace fairlead::apiserver {

std::unique_ptr<Strategy> make_strategy(const kube::Kind& kind);

}  // namespace fairlead::apiserver
