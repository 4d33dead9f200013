// ObjectMeta of custom resources and their definitions: as validate_meta() has it, but finalizers may be any qualified name.
// (The built-in kinds want them fully qualified, or among the standard ones.) Pure.
#pragma once

#include "controlplane/apiserver/validation/meta.h"

namespace fairlead::apiserver {

field::ErrorList validate_custom_meta(const metav1::ObjectMeta& m, bool namespaced, NameCheck check, const field::Path& path);
field::ErrorList validate_custom_meta_update(const metav1::ObjectMeta& now, const metav1::ObjectMeta& before, const field::Path& path);

}  // namespace fairlead::apiserver
