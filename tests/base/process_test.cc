// Child processes: start, streams, exit statuses, failures of each step, and no leftovers.
#include "base/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>

#include "base/files.h"
#include "tests/base/asio_test_util.h"

namespace fairlead {
namespace {

using namespace std::chrono_literals;
using test::value;
using testing::HasSubstr;

ProcessOptions sh(std::string script) {
  ProcessOptions o;
  o.argv = {"sh", "-c", std::move(script)};
  return o;
}

TEST(RunCommand, Table) {
  struct Case {
    const char* story;
    std::string script;
    std::string input;
    int code;
    int signal;
    std::string out, err;
  };
  const Case cases[] = {
      {"prints on both streams", "echo out; echo err >&2", "", 0, 0, "out\n", "err\n"},
      {"exit code", "exit 7", "", 7, 0, "", ""},
      {"reads its input to the end", "wc -c", std::string(300'000, 'x'), 0, 0, "300000\n", ""},
      {"closes its input early: no SIGPIPE here", "exec 0<&-; sleep 0.05; echo ok", std::string(300'000, 'x'), 0, 0, "ok\n", ""},
      {"killed by a signal", "kill -9 $$", "", -1, 9, "", ""},
      {"SIGPIPE has its default action in the child", "kill -PIPE $$; echo survived", "", -1, SIGPIPE, "", ""},
      {"a large output", "head -c 200000 /dev/zero | tr '\\0' a", "", 0, 0, std::string(200'000, 'a'), ""},
  };
  ::signal(SIGPIPE, SIG_IGN);  // as our daemons do
  for (const auto& c : cases) {
    SCOPED_TRACE(c.story);
    const auto r = value(run_command(sh(c.script), c.input, 10s));
    EXPECT_EQ(r.status.code, c.code);
    EXPECT_EQ(r.status.signal, c.signal);
    EXPECT_EQ(r.stdout_text, c.out);
    EXPECT_EQ(r.stderr_text, c.err);
  }
}

TEST(RunCommand, ReportsTheStepThatFailed) {
  const auto message = [](const ProcessOptions& o) {
    const auto r = run_command(o, {}, 5s);
    return r ? std::string("started") : r.error().message;
  };
  ProcessOptions o = sh("true");
  EXPECT_EQ(message(o), "started");
  o.argv = {};
  EXPECT_THAT(message(o), HasSubstr("argv is empty"));
  o.argv = {"no-such-program-here"};
  EXPECT_EQ(message(o), "program no-such-program-here: not found in PATH");
  o.argv = {"/no/such/program"};
  EXPECT_EQ(message(o), "start /no/such/program: execute /no/such/program: No such file or directory");
  o.argv = {"/etc/passwd"};
  EXPECT_EQ(message(o), "start /etc/passwd: execute /etc/passwd: Permission denied");
  o = sh("true");
  o.netns = "/no/such/netns";
  EXPECT_THAT(message(o), HasSubstr("open network namespace /no/such/netns: No such file"));
  o.netns = "/etc/passwd";
  EXPECT_THAT(message(o), HasSubstr("enter network namespace /etc/passwd: "));
  o = sh("true");
  o.working_directory = "/no/such/folder";
  EXPECT_THAT(message(o), HasSubstr("change to folder /no/such/folder: No such file"));
}

TEST(RunCommand, KillsWhatTakesTooLong) {
  const auto begin = std::chrono::steady_clock::now();
  const auto r = run_command(sh("exec sleep 60"), {}, 100ms);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ErrorCode::timeout);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
}

TEST(RunCommand, HandsOverNoDescriptorsAndTheGivenEnvironment) {
  const int leaky = ::open("/dev/null", O_RDONLY);  // without close-on-exec
  ProcessOptions o;
  o.argv = {"/bin/sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; echo $A-$B"};
  o.environment = {"A=1", "PATH=/usr/bin:/bin"};
  const auto r = value(run_command(o));
  ::close(leaky);
  EXPECT_EQ(r.stdout_text, "0 1 2 3 1-\n");  // 3 is the folder that ls itself reads
}

TEST(Process, WaitsWithoutBlockingOthersAndEndsOnSignal) {
  test::Loop loop;
  loop.run([]() -> Task<> {
    auto quick = value(Process::start(sh("exit 3")));
    const auto status = value(co_await quick.wait_async());
    EXPECT_EQ(status.to_string(), "exit code 3");
    EXPECT_EQ(value(quick.wait()).code, 3);                                       // again: the same answer
    EXPECT_EQ(quick.kill(SIGTERM).error().code, ErrorCode::failed_precondition);  // never some other process

    auto polite = value(Process::start(sh("exec sleep 60")));
    EXPECT_EQ(value(polite.poll()).has_value(), false);
    const auto ended = value(co_await polite.terminate(10s));
    EXPECT_EQ(ended.to_string(), "signal SIGTERM");

    auto stubborn = value(Process::start(sh("trap '' TERM; echo; while :; do sleep 0.02; done > /dev/null")));
    const auto rested = co_await sleep_for(100ms);
    EXPECT_TRUE(rested);
    const auto killed = value(co_await stubborn.terminate(100ms));
    EXPECT_EQ(killed.to_string(), "signal SIGKILL");
  });
}

TEST(Process, AppendsItsOutputToAFile) {
  const std::string file = testing::TempDir() + "process_test." + std::to_string(::getpid());
  for (const char* word : {"one", "two"}) {
    ProcessOptions o = sh(std::string("pwd; echo ") + word);
    o.stdout_file = file;
    o.stdin_file = "/dev/null";
    o.working_directory = "/";
    o.new_session = true;
    auto p = value(Process::start(o));
    EXPECT_TRUE(value(p.wait()).ok());
  }
  EXPECT_EQ(value(read_file(file)), "/\none\n/\ntwo\n");
  ::unlink(file.c_str());
}

}  // namespace
}  // namespace fairlead
