// fairlead-demo: the application that the lab deploys, and the client that asks it. One static program without a shell
// beside it in its image, hence the few tools (sleep, env, cat, write, exit) that tests of pods need.
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "demo/options.h"

namespace fairlead::demo {
namespace {

constexpr const char* kHelp =
    "usage: fairlead-demo COMMAND\n"
    "  serve [--port 8080] [--udp-port 8081] [--drain 2s] [--controls] [--log-requests]\n"
    "        answers / with pod, node, address and client as JSON (text with ?format=text), ?delay=250ms waits first;\n"
    "        /healthz, /readyz; on SIGTERM readiness fails and requests are served until the drain time is over;\n"
    "        --controls adds /control/ready?set=false, /control/healthy?set=false and /control/exit?code=1\n"
    "  fetch URL [--count N] [--interval MS] [--timeout MS] [--retry once] [--keep-alive] [--summary] [--body]\n"
    "        asks http://host:port/path or udp://host:port, prints which pod answered; exit code 1 if any request failed\n"
    "  probe URL|FILE [--timeout MS]    exit code 0 when it answers (http://, tcp://, udp://) or when the file is there\n"
    "  sleep DURATION|infinity          ends at once on SIGTERM\n"
    "  env | cat FILE... | write FILE TEXT | exit CODE [--after DURATION] [--say TEXT]\n";

int run_sleep(std::chrono::milliseconds time, bool for_ever) {
  // As PID 1 a signal without a handler would be ignored.
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGTERM);
  ::sigaddset(&mask, SIGINT);
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  timespec left{time.count() / 1000, (time.count() % 1000) * 1'000'000};
  siginfo_t info;
  int got = 0;
  do {
    got = for_ever ? ::sigwaitinfo(&mask, &info) : ::sigtimedwait(&mask, &info, &left);
  } while (got < 0 && errno == EINTR);
  return got > 0 ? 128 + got : 0;
}

int sleep_command(int argc, char** argv) {
  const Options options = Options::parse(argc, argv, {}, {});
  if (options.words().size() != 1) usage_error("sleep needs one duration");
  if (options.words()[0] == "infinity") return run_sleep({}, true);
  std::chrono::milliseconds time{};
  if (!parse_duration(options.words()[0], "s", time))
    usage_error("sleep: \"" + options.words()[0] + "\" is not a duration like 250ms or 2s");
  return run_sleep(time, false);
}

int env_command() {
  for (char** e = environ; *e; ++e) std::puts(*e);
  return 0;
}

int cat_command(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    FILE* file = std::fopen(argv[i], "re");
    if (!file) {
      std::fprintf(stderr, "%s: %s\n", argv[i], std::strerror(errno));
      return 1;
    }
    char buffer[16384];
    std::size_t n = 0;
    while ((n = std::fread(buffer, 1, sizeof buffer, file)) > 0) std::fwrite(buffer, 1, n, stdout);
    std::fclose(file);
  }
  return 0;
}

int write_command(int argc, char** argv) {
  if (argc != 3) usage_error("write needs a file and a text");
  FILE* file = std::fopen(argv[1], "we");
  const bool ok = file && std::fputs(argv[2], file) >= 0 && std::fputc('\n', file) != EOF;
  if (file && std::fclose(file) == 0 && ok) return 0;
  std::fprintf(stderr, "%s: %s\n", argv[1], std::strerror(errno));
  return 1;
}

int exit_command(int argc, char** argv) {
  const Options options = Options::parse(argc, argv, {"--after", "--say"}, {});
  if (options.words().size() != 1) usage_error("exit needs one code");
  if (options.has("--say")) std::puts(options.text("--say", "").c_str());
  std::fflush(stdout);
  const int signal = run_sleep(options.duration("--after", {}, "s"), false);
  return signal ? signal : std::atoi(options.words()[0].c_str());
}

int run(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "--help";
  if (command == "serve") return run_serve(argc - 1, argv + 1);
  if (command == "fetch") return run_fetch(argc - 1, argv + 1);
  if (command == "probe") return run_probe(argc - 1, argv + 1);
  if (command == "sleep") return sleep_command(argc - 1, argv + 1);
  if (command == "env") return env_command();
  if (command == "cat") return cat_command(argc - 1, argv + 1);
  if (command == "write") return write_command(argc - 1, argv + 1);
  if (command == "exit") return exit_command(argc - 1, argv + 1);
  if (command == "--help" || command == "-h" || command == "help") return std::fputs(kHelp, stdout), argc > 1 ? 0 : 2;
  usage_error("unknown command \"" + command + "\"");
}

}  // namespace
}  // namespace fairlead::demo

int main(int argc, char** argv) { return fairlead::demo::run(argc, argv); }
