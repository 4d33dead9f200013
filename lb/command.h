// `fairlead lb controller|speaker|status`
#pragma once

namespace fairlead::lb {
int run_lb(int argc, char** argv);
}  // namespace fairlead::lb
