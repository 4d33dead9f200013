// The reactor's promise to handlers: what was forgotten is never called again, whoever else still holds its descriptor.
#include "ingress/runtime/reactor.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

namespace fairlead::ingress {
namespace {

struct Counting final : Handler {
  void on_events(std::uint32_t) override { ++calls; }
  int calls = 0;
};

// A process that is started from another thread has copies of all descriptors until it executes its program.
TEST(Reactor, AForgottenHandlerIsNotCalledThoughItsSocketIsStillOpenElsewhere) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
  const Fd copy(::dup(pair[0])), peer(pair[1]);
  Reactor reactor;
  ASSERT_TRUE(reactor.open());
  Counting handler;
  int before = -1;
  ASSERT_TRUE(reactor.add(pair[0], handler));
  // A round for each step: forget, make the other end speak, look.
  reactor.post([&] {
    reactor.forget(handler);
    ::close(pair[0]);
    before = handler.calls;
    reactor.post([&] {
      EXPECT_EQ(::write(peer.get(), "x", 1), 1);
      reactor.post([&] { reactor.stop(); });
    });
  });
  reactor.run();
  EXPECT_GE(before, 0);
  EXPECT_EQ(handler.calls, before);
}

}  // namespace
}  // namespace fairlead::ingress
