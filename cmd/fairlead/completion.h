// `fairlead completion bash|zsh`: a completion script. Commands come from the table, flags from each command's own --help,
// so a new flag is completed without being listed anywhere else.
#pragma once

namespace fairlead {

int run_completion(int argc, char** argv);

}  // namespace fairlead
