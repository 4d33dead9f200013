#include "cmd/fairlead/completion.h"

#include <iostream>
#include <string_view>

#include "cmd/fairlead/command.h"

namespace fairlead {

static void print_bash() {
  std::cout << "_fairlead() {\n  local cur=${COMP_WORDS[COMP_CWORD]}\n  if [[ $COMP_CWORD -eq 1 ]]; then\n    COMPREPLY=($(compgen -W '";
  for (const auto& c : commands())
    if (!c.group.empty()) std::cout << c.name << " ";
  std::cout << "completion help version' -- \"$cur\"))\n"
               "  elif [[ $cur == -* ]]; then\n"
               "    COMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" \"${COMP_WORDS[1]}\" --help 2>/dev/null | grep -oE -- '--[a-z][a-z0-9-]+' | sort -u)\" "
               "-- \"$cur\"))\n"
               "  else\n    COMPREPLY=($(compgen -f -- \"$cur\"))\n  fi\n}\ncomplete -o filenames -F _fairlead fairlead\n";
}

int run_completion(int argc, char** argv) {
  const std::string_view shell = argc > 1 ? argv[1] : "";
  if (shell == "zsh") std::cout << "autoload -U +X bashcompinit && bashcompinit\n";
  if (shell == "zsh" || shell == "bash") return print_bash(), 0;
  std::cerr << "usage: fairlead completion bash|zsh\n  source <(fairlead completion bash)\n";
  return 2;
}

}  // namespace fairlead
