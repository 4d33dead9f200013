// Events have two faces, core/v1 and events.k8s.io/v1, and one place in the store (the core one). Pure.
#pragma once

#include "controlplane/apiserver/object.h"

namespace fairlead::apiserver {

void events_v1_from_core(const Message& core, Message& events_v1);
void core_from_events_v1(const Message& events_v1, Message& core);

}  // namespace fairlead::apiserver
