// The table of subcommands of `fairlead`. A command is a function with its own flags (argv[0] is its name) that returns the
// process's exit code: 0 done, 1 failed, 2 wrong usage.
#pragma once

#include <span>
#include <string_view>

namespace fairlead {

struct Command {
  std::string_view name;
  std::string_view group;    // heading in the help; empty: internal, not listed
  std::string_view summary;
  int (*run)(int argc, char** argv);
};

std::span<const Command> commands();

}  // namespace fairlead
