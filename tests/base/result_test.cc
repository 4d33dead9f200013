#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "base/files.h"
#include "base/scope_guard.h"

namespace fairlead {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return fail(ErrorCode::invalid_argument, "{} is odd", n);
  return n / 2;
}
Result<int> quarter(int n) {
  FL_TRY_CTX(auto h, half(n), "first half of {}", n);
  FL_TRY(auto q, half(h));
  return q;
}

TEST(Result, CarriesContextUp) {
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(3).error().message, "first half of 3: 3 is odd");
  EXPECT_EQ(quarter(6).error(), (Error{ErrorCode::invalid_argument, "3 is odd", 0}));
}

TEST(Result, ErrnoKeepsItsNumber) {
  const auto e = errno_error(ENOENT, "open /x");
  EXPECT_EQ(e.code, ErrorCode::not_found);
  EXPECT_EQ(e.sys_errno, ENOENT);
  EXPECT_EQ(e.message, "open /x: No such file or directory");
  EXPECT_TRUE(errno_error(ECONNREFUSED, "connect").retryable());
  EXPECT_FALSE(e.retryable());
}

TEST(ScopeGuard, RunsUnlessDismissed) {
  int ran = 0;
  {
    auto g = on_exit([&] { ++ran; });
  }
  {
    auto g = on_exit([&] { ++ran; });
    g.dismiss();
  }
  {
    auto g = on_exit([&] { ++ran; });
    auto h = std::move(g);
  }
  EXPECT_EQ(ran, 2);
}

TEST(Files, AtomicWriteAndBoundedRead) {
  const std::string dir = testing::TempDir() + "fairlead-files/a/b";
  ASSERT_TRUE(make_dirs(dir));
  ASSERT_TRUE(write_file_atomic(dir + "/f", "one", 0600));
  ASSERT_TRUE(write_file_atomic(dir + "/f", "two"));
  EXPECT_EQ(read_file(dir + "/f").value(), "two");
  EXPECT_EQ(read_file(dir + "/f", 2).error().code, ErrorCode::resource_exhausted);
  EXPECT_EQ(read_file(dir + "/none").error().code, ErrorCode::not_found);
  EXPECT_FALSE(write_file_atomic("/proc/nope/f", "x"));
}

}  // namespace
}  // namespace fairlead
