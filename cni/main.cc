// fairlead-cni: started by a container runtime for every pod, so it links little and does its work on one thread.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/version.h"
#include "cni/plugin.h"

namespace {

std::optional<std::string> read_stdin() {
  std::string text;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::nullopt;
    if (n == 0 || text.size() > fairlead::cni::kMaxConfigBytes) return text;
    text.append(buffer, static_cast<std::size_t>(n));
  }
}

void help() {
  std::printf(
      "fairlead-cni %s: CNI plugin, called by a container runtime.\n"
      "It reads CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS, VERSION) and the other CNI_ variables from the environment and a\n"
      "network configuration from stdin, and prints a result or an error as JSON. Configuration: docs/cni.md.\n",
      fairlead::kVersion);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace fairlead::cni;
  if (argc > 1) {
    help();
    return std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0 ? 0 : 2;
  }
  if (::getenv("CNI_COMMAND") == nullptr && ::isatty(STDIN_FILENO)) {
    help();
    return 2;
  }
  const auto text = read_stdin();
  const Environment environment = [](const std::string& name) -> std::optional<std::string> {
    const char* v = ::getenv(name.c_str());
    return v ? std::optional<std::string>(v) : std::nullopt;
  };
  const Outcome outcome = text ? run_plugin(real_services(), environment, *text) : Outcome{R"({"cniVersion":"1.1.0","code":5,"msg":"stdin can not be read"})", 1};
  std::fwrite(outcome.out.data(), 1, outcome.out.size(), stdout);
  if (std::fflush(stdout) != 0) return 1;
  return outcome.exit_code;
}
