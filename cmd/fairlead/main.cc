// `fairlead`: one binary, many commands. Called by another name (a link named kube-proxy) it is that command at once.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <string>

#include "base/version.h"
#include "cmd/fairlead/command.h"
#include "cmd/fairlead/completion.h"

namespace fairlead {
namespace {

void print_help(std::ostream& out) {
  out << "fairlead " << kVersion << ": Kubernetes service networking\n\nusage: fairlead COMMAND [flags]\n";
  std::string_view group;
  for (const auto& c : commands()) {
    if (c.group.empty()) continue;
    if (c.group != group) out << "\n" << (group = c.group) << "\n";
    out << "  " << c.name << std::string(c.name.size() < 20 ? 20 - c.name.size() : 1, ' ') << c.summary << "\n";
  }
  out << "\n`fairlead COMMAND --help` tells a command's flags. `fairlead --version` prints the version.\n";
}

const Command* find(std::string_view name) {
  const auto all = commands();
  const auto it = std::find_if(all.begin(), all.end(), [&](const Command& c) { return c.name == name; });
  return it == all.end() ? nullptr : &*it;
}

int dispatch(int argc, char** argv) {
  const auto called_as = std::filesystem::path(argc > 0 ? argv[0] : "").filename().string();
  if (const Command* c = called_as == "kube-proxy" ? find("proxy") : nullptr) return c->run(argc, argv);
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word.empty()) return print_help(std::cerr), 2;
  if (word == "--help" || word == "-h" || word == "help") return print_help(std::cout), 0;
  if (word == "--version" || word == "version") {
    std::cout << "fairlead " << kVersion << " (Kubernetes " << kKubernetesVersion << ")\n";
    return 0;
  }
  if (word == "completion") return run_completion(argc - 1, argv + 1);
  if (const Command* c = find(word)) return c->run(argc - 1, argv + 1);
  std::cerr << "fairlead: unknown command \"" << word << "\"; `fairlead --help` lists them\n";
  return 2;
}

}  // namespace
}  // namespace fairlead

int main(int argc, char** argv) { return fairlead::dispatch(argc, argv); }
