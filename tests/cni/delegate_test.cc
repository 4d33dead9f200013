// Running another plugin: scripts stand in for it.
#include "cni/delegate.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace fairlead::cni {
namespace {

class Delegate : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("fairlead-delegate-{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  CniResult<std::string> run(const std::string& script, const std::string& conf = "{}") {
    const std::string file = folder_ + "/ipam";
    std::ofstream(file) << "#!/bin/sh\n" << script;
    ::chmod(file.c_str(), 0755);
    Request r{.verb = Verb::add, .container_id = "c1", .netns = "/n/x", .ifname = "eth0", .args = {{"A", "1"}, {"IgnoreUnknown", "1"}}, .path = "/nowhere:" + folder_};
    return run_delegate("ipam", r, Verb::del, conf);
  }
  std::string folder_;
};

TEST_F(Delegate, GetsEnvironmentAndConfiguration) {
  const auto out = run(R"(echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS"; cat)", "{\"x\":1}");
  ASSERT_TRUE(out) << out.error().msg;
  EXPECT_EQ(*out, "DEL c1 /n/x eth0 A=1;IgnoreUnknown=1\n{\"x\":1}");
}

TEST_F(Delegate, ErrorsComeThrough) {
  struct Row {
    const char* script;
    Code code;
    const char* says;
  };
  for (const Row& r : {Row{R"(cat >/dev/null; echo '{"code":11,"msg":"busy","details":"d"}'; exit 1)", Code::try_again_later, "ipam: busy"},
                       Row{"echo rubbish; exit 3", Code::delegate_failed, "exit code 3"}, Row{"kill -9 $$", Code::delegate_failed, "signal 9"}}) {
    const auto out = run(r.script);
    ASSERT_FALSE(out) << r.script;
    EXPECT_EQ(out.error().code, r.code) << r.script;
    EXPECT_NE(out.error().msg.find(r.says), std::string::npos) << out.error().msg;
  }
}

TEST_F(Delegate, APluginThatDoesNotReadIsNoProblem) {
  const auto out = run("echo done", std::string(1 << 20, 'x'));
  ASSERT_TRUE(out) << out.error().msg;
  EXPECT_EQ(*out, "done\n");
}

TEST_F(Delegate, AMissingPluginIsNamed) {
  const auto out = run_delegate("no-such-plugin", {.path = folder_}, Verb::add, "{}");
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().code, Code::invalid_config);
  EXPECT_NE(out.error().msg.find("no-such-plugin"), std::string::npos);
}

}  // namespace
}  // namespace fairlead::cni
