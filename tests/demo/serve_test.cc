// The demo program as a whole: a server process, asked by the client process, over loopback.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace fairlead::demo {
namespace {

using testing::HasSubstr;

std::string program() {
  return std::string(std::getenv("FAIRLEAD_BIN") ? std::getenv("FAIRLEAD_BIN") : "build/release/bin") + "/fairlead-demo";
}

std::string free_port(int type) {
  const int fd = ::socket(AF_INET, type, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t n = sizeof a;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&a), n), 0);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &n);
  ::close(fd);
  return std::to_string(::ntohs(a.sin_port));
}

pid_t start(const std::vector<std::string>& words, int out_fd) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::setenv("POD_NAME", "web-0", 1);
  ::setenv("VERSION", "7", 1);
  ::dup2(out_fd, 1);
  ::dup2(out_fd, 2);
  std::vector<char*> argv;
  for (const std::string& w : words) argv.push_back(const_cast<char*>(w.c_str()));
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

struct Output {
  int code = -1;
  std::string text;
};

Output run(std::vector<std::string> words) {
  words.insert(words.begin(), program());
  int pipe_fds[2];
  EXPECT_EQ(::pipe(pipe_fds), 0);
  const pid_t pid = start(words, pipe_fds[1]);
  ::close(pipe_fds[1]);
  Output out;
  char buffer[4096];
  for (ssize_t n; (n = ::read(pipe_fds[0], buffer, sizeof buffer)) > 0;) out.text.append(buffer, static_cast<std::size_t>(n));
  ::close(pipe_fds[0]);
  int status = 0;
  ::waitpid(pid, &status, 0);
  out.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return out;
}

class Demo : public testing::Test {
 protected:
  void SetUp() override {
    pid_ = start({program(), "serve", "--port", port_, "--udp-port", udp_port_, "--controls", "--drain", "400ms"}, 2);
    for (int i = 0; i < 500 && run({"probe", "tcp://127.0.0.1:" + port_}).code != 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  void TearDown() override {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  std::string url(const std::string& path) const { return "http://127.0.0.1:" + port_ + path; }

  const std::string port_ = free_port(SOCK_STREAM);
  const std::string udp_port_ = free_port(SOCK_DGRAM);
  pid_t pid_ = -1;
};

TEST_F(Demo, TellsWhoAnswered) {
  const Output one = run({"fetch", url("/")});
  EXPECT_EQ(one.code, 0);
  EXPECT_THAT(one.text, HasSubstr("pod=web-0"));
  EXPECT_THAT(one.text, HasSubstr("version=7"));
  EXPECT_THAT(run({"fetch", url("/x?format=text"), "--body"}).text, HasSubstr("podIP=127.0.0.1 version=7"));
  EXPECT_THAT(run({"fetch", "udp://127.0.0.1:" + udp_port_, "--body"}).text, HasSubstr("\"server\": \"127.0.0.1:" + udp_port_));
  EXPECT_THAT(run({"fetch", url("/"), "--count", "50", "--summary", "--keep-alive"}).text, HasSubstr("requests 50, failed 0"));
}

TEST_F(Demo, ReadinessAndFailuresShowInExitCodes) {
  EXPECT_EQ(run({"probe", url("/readyz")}).code, 0);
  run({"fetch", url("/control/ready?set=false")});
  EXPECT_EQ(run({"probe", url("/readyz")}).code, 1);
  EXPECT_EQ(run({"probe", url("/healthz")}).code, 0);
  EXPECT_EQ(run({"fetch", "http://127.0.0.1:1/", "--retry", "once"}).code, 1);
  EXPECT_EQ(run({"fetch", url("/?delay=300ms"), "--timeout", "50"}).code, 1);
  EXPECT_EQ(run({"fetch", "ftp://x"}).code, 2);
}

TEST_F(Demo, TerminationKeepsServingWhileReadinessFails) {
  ::kill(pid_, SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(run({"probe", url("/readyz")}).code, 1);
  EXPECT_EQ(run({"fetch", url("/"), "--count", "20"}).code, 0);
  int status = -1;
  ASSERT_EQ(::waitpid(pid_, &status, 0), pid_);
  pid_ = -1;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_F(Demo, SmallTools) {
  EXPECT_EQ(run({"exit", "3", "--say", "bye"}).code, 3);
  EXPECT_THAT(run({"env"}).text, HasSubstr("POD_NAME=web-0"));
  EXPECT_EQ(run({"cat", "/does/not/exist"}).code, 1);
  EXPECT_EQ(run({"sleep", "10ms"}).code, 0);
  EXPECT_EQ(run({"sleep", "x"}).code, 2);
  EXPECT_EQ(run({}).code, 2);
}

}  // namespace
}  // namespace fairlead::demo
