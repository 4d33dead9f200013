// A daemon as its operator sees it: ready line, notify socket, signals, exit codes; and its health pages.
#include "base/daemon.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>

#include "base/files.h"
#include "base/http/client.h"
#include "base/http/health.h"
#include "base/process.h"
#include "tests/base/asio_test_util.h"

namespace fairlead {
namespace {

using namespace std::chrono_literals;
using test::value;
using testing::HasSubstr;
using testing::StartsWith;

std::string program() { return std::string(std::getenv("FAIRLEAD_BIN")) + "/daemon_test_program"; }

struct Running {
  explicit Running(std::string how, std::vector<std::string> environment = {}) {
    out = testing::TempDir() + "daemon_test." + std::to_string(::getpid());
    ::unlink(out.c_str());
    ProcessOptions o;
    o.argv = {program(), std::move(how)};
    o.stdout_file = o.stderr_file = out;
    o.environment = std::move(environment);
    process = value(Process::start(o));
  }
  ~Running() {
    (void)process.kill(SIGKILL);
    (void)process.wait();
    ::unlink(out.c_str());
  }
  std::string output() const { return value(read_file(out)); }
  std::string wait_for(const std::string& text) const {
    for (int i = 0; i < 500 && output().find(text) == std::string::npos; ++i) ::usleep(10'000);
    return output();
  }
  std::string address() const {
    const auto all = wait_for("ready: ");
    const auto at = all.find("ready: ") + 7;
    return all.substr(at, all.find('\n', at) - at);
  }
  std::string out;
  Process process;
};

TEST(Daemon, StopsInOrderOnTheFirstSignal) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Running d("");
    EXPECT_THAT(d.wait_for("ready"), HasSubstr("test ready: 127.0.0.1:"));
    value(d.process.kill(signal));
    EXPECT_EQ(value(d.process.wait()).to_string(), "exit code 0");
  }
}

TEST(Daemon, ExitsAtOnceOnTheSecondOrWhenStoppingHangs) {
  {
    Running d("hang");
    d.wait_for("ready");
    value(d.process.kill(SIGTERM));
    d.wait_for("stopping");
    value(d.process.kill(SIGINT));
    EXPECT_EQ(value(d.process.wait()).to_string(), "exit code 130");
  }
  {
    Running d("hang");
    d.wait_for("ready");
    value(d.process.kill(SIGTERM));
    EXPECT_EQ(value(d.process.wait()).to_string(), "exit code 143");
    EXPECT_THAT(d.output(), HasSubstr("took too long"));
  }
}

TEST(Daemon, ReportsWhyItEnded) {
  {
    Running d("fail");
    EXPECT_EQ(value(d.process.wait()).to_string(), "exit code 1");
    EXPECT_THAT(d.output(), HasSubstr("no such flag"));
  }
  {
    Running d("throw");
    EXPECT_EQ(value(d.process.wait()).to_string(), "exit code 1");
    EXPECT_THAT(d.output(), HasSubstr("thrown"));
  }
  {
    Running d("return");
    EXPECT_EQ(value(d.process.wait()).to_string(), "exit code 0");
  }
}

TEST(Daemon, TellsTheServiceManager) {
  for (const bool abstract : {false, true}) {
    const std::string path = (abstract ? "@" : testing::TempDir()) + "daemon_test_notify." + std::to_string(::getpid());
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path, path.data(), path.size());
    if (abstract)
      a.sun_path[0] = '\0';
    else
      ::unlink(path.c_str());
    const Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const timeval limit{10, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ASSERT_EQ(
        ::bind(fd.get(), reinterpret_cast<sockaddr*>(&a), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size())),
        0);
    const auto receive = [&] {
      char buffer[256];
      const ssize_t n = ::recv(fd.get(), buffer, sizeof buffer, 0);
      return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string("nothing");
    };
    {
      Running d("", {"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=20000"});
      EXPECT_THAT(receive(), StartsWith("READY=1\nSTATUS=127.0.0.1:"));
      EXPECT_EQ(receive(), "WATCHDOG=1");
      EXPECT_EQ(receive(), "WATCHDOG=1");
      value(d.process.kill(SIGTERM));
      std::string last;
      for (int i = 0; i < 5 && last != "STOPPING=1"; ++i) last = receive();
      EXPECT_EQ(last, "STOPPING=1");
    }
    if (!abstract) ::unlink(path.c_str());
  }
}

TEST(Health, PagesOfARunningDaemon) {
  Running d("");
  test::Loop loop;
  http::ClientOptions o;
  o.base_url = "http://" + d.address();
  const auto client = value(http::make_client(loop.executor(), o));
  struct Case {
    const char* method;
    const char* target;
    unsigned status;
    const char* body;
  };
  const Case cases[] = {
      {"GET", "/healthz", 200, "ok"},
      {"HEAD", "/healthz", 200, ""},
      {"GET", "/livez?verbose", 200, "[+]ping ok\nlivez check passed\n"},
      {"GET", "/readyz/ping", 200, "ok"},
      {"GET", "/readyz/nothing", 404, "no such check"},
      {"GET", "/healthzz", 404, "not found"},
      {"POST", "/healthz", 405, "only GET"},
      {"GET", "/metrics", 200, "process_resident_memory_bytes "},
      {"GET", "/metrics", 200, "process_cpu_seconds_total "},
      {"GET", "/metrics", 200, "process_open_fds "},
      {"GET", "/metrics", 200, "process_start_time_seconds 1"},
      {"GET", "/", 404, "not found"},
  };
  for (const auto& c : cases)
    loop.run([&]() -> Task<> {
      http::Request r;
      r.method = c.method;
      r.target = c.target;
      const auto a = value(co_await client->request(r, 5s));
      EXPECT_EQ(a.status, c.status) << c.target;
      EXPECT_THAT(a.body, HasSubstr(c.body)) << c.target;
    });
}

TEST(Health, SaysWhichCheckFails) {
  metrics::Registry registry;
  http::Health health(&registry);
  bool synced = false;
  health.add_live("loop", [] { return Result<>{}; });
  health.add_ready("sync", [&]() -> Result<> {
    if (synced) return {};
    return fail(ErrorCode::failed_precondition, "no sync yet");
  });
  const auto ask = [&](std::string target) {
    http::Request r;
    r.target = std::move(target);
    const auto a = health.handle(r);
    return a ? fmt::format("{} {}", a->status, a->body) : "not ours";
  };
  EXPECT_EQ(ask("/livez"), "200 ok");
  EXPECT_EQ(ask("/healthz"), "200 ok");
  EXPECT_EQ(ask("/readyz"), "500 [+]ping ok\n[+]loop ok\n[-]sync failed: no sync yet\nreadyz check failed\n");
  EXPECT_EQ(ask("/readyz?exclude=sync"), "200 ok");
  EXPECT_EQ(ask("/readyz/sync"), "500 [-]sync failed: no sync yet\nreadyz check failed\n");
  EXPECT_EQ(ask("/livez/sync"), "404 no such check: sync\n");
  synced = true;
  EXPECT_EQ(ask("/readyz"), "200 ok");
  EXPECT_EQ(ask("/api/v1"), "not ours");
}

}  // namespace
}  // namespace fairlead
