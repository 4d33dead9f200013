#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "lab/commands.h"
#include "lab/flags.h"
#include "lab/state.h"
#include "lab/teardown.h"

namespace fairlead::lab {

static Result<int> down(Options options) {
  if (::geteuid() != 0) return fail(ErrorCode::permission_denied, "removing a lab needs root; run it with sudo");
  FL_TRY(const auto lock, lock_lab(options.state_dir));
  if (const auto state = load_state(options.state_dir)) options = state->options;
  const auto t = remove_lab(options);
  for (const auto& r : t.removed) std::cout << "removed " << r << "\n";
  for (const auto& p : t.problems) std::cerr << "fairlead down: could not remove " << p << "\n";
  if (t.removed.empty() && t.problems.empty()) std::cout << "there is no lab\n";
  return t.problems.empty() ? 0 : 1;
}

int run_down(int argc, char** argv) {
  CLI::App app("Remove the lab: processes, namespaces, links, rules, mounts, files", "fairlead down");
  Options options = default_options();
  add_state_dir(app, options);
  app.add_option("--bridge", options.bridge, "Name of the bridge, where the lab's own record is lost")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  auto r = down(options);
  if (!r) std::cerr << "fairlead down: " << r.error().message << "\n";
  return r ? *r : 1;
}

}  // namespace fairlead::lab
