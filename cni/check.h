// CHECK: what an attachment should look like against what is there. Pure: the difference is a list of sentences.
#pragma once

#include <string>
#include <vector>

#include "cni/kernel.h"

namespace fairlead::cni {

std::vector<std::string> differences(const AttachPlan& plan, const Attachment& reported, const Request& r, const Observed& o);

}  // namespace fairlead::cni
