// The proxy's commands, as a user drives them: tests/proxy/command_test.sh in a namespace of its own.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/proxy/testnet.h"

namespace fairlead::proxy {
namespace {

TEST(Commands, AsAUserDrivesThem) {
  if (!testnet::available()) GTEST_SKIP() << "needs root";
  const char* bin = std::getenv("FAIRLEAD_BIN");
  ASSERT_TRUE(bin) << "run it through ctest";
  char folder[] = "/tmp/fairlead-command-XXXXXX";
  ASSERT_TRUE(::mkdtemp(folder));
  const testnet::Namespace ns;
  const auto out = ns.sh(std::string("tests/proxy/command_test.sh ") + bin + " " + folder);
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_NE(out->find("all is well"), std::string::npos) << *out;
}

}  // namespace
}  // namespace fairlead::proxy
