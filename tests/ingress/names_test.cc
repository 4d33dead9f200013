// Names outside of the cluster, against a DNS server on loopback that says what a test wants: addresses and how long they live,
// changes, silence, malformed answers, names that do not exist.
#include "ingress/command/names.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

#include "base/fd.h"
#include "ingress/runtime/sockaddr.h"
#include "tests/base/asio_test_util.h"

namespace fairlead::ingress {
namespace {

using Bytes = std::vector<unsigned char>;

void put16(Bytes& b, unsigned v) {
  b.push_back(static_cast<unsigned char>(v >> 8));
  b.push_back(static_cast<unsigned char>(v));
}

// The question's own bytes with an answer of these addresses. rcode 3: no such name.
Bytes answer_to(const Bytes& question, const std::vector<std::string>& addresses, unsigned ttl, unsigned rcode = 0) {
  std::size_t end = 12;
  while (end < question.size() && question[end] != 0) end += question[end] + 1u;
  end += 5;
  const bool v6 = question[end - 3] == 28;
  Bytes out(question.begin(), question.begin() + static_cast<std::ptrdiff_t>(end));
  out[2] = 0x81;
  out[3] = static_cast<unsigned char>(0x80 | rcode);
  std::fill(out.begin() + 6, out.begin() + 12, static_cast<unsigned char>(0));
  for (const auto& text : addresses) {
    const auto ip = *IpAddress::parse(text);
    if (ip.is_v6() != v6) continue;
    put16(out, 0xc00c);
    put16(out, v6 ? 28 : 1);
    put16(out, 1);
    put16(out, ttl >> 16);
    put16(out, ttl);
    put16(out, static_cast<unsigned>(ip.bytes().size()));
    out.insert(out.end(), ip.bytes().begin(), ip.bytes().end());
    ++out[7];
  }
  return out;
}

class DnsServer {
 public:
  using Answer = std::function<Bytes(const Bytes& question)>;  // empty: none
  explicit DnsServer(Answer answer) : answer_(std::move(answer)), fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    auto k = to_sockaddr({IpAddress::v4(127, 0, 0, 1), 0});
    EXPECT_EQ(::bind(fd_.get(), k.get(), k.size), 0);
    ::getsockname(fd_.get(), k.get(), &k.size);
    address_ = from_sockaddr(k);
    thread_ = std::thread([this] { serve(); });
  }
  ~DnsServer() {
    stop_ = true;
    thread_.join();
  }
  void say(Answer answer) {
    const std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
  }
  const SocketAddress& address() const { return address_; }
  int questions() const { return questions_; }

 private:
  void serve() {
    while (!stop_) {
      pollfd p{fd_.get(), POLLIN, 0};
      if (::poll(&p, 1, 20) <= 0) continue;
      Bytes question(4096);
      KernelAddress from;
      const auto n = ::recvfrom(fd_.get(), question.data(), question.size(), 0, from.get(), &from.size);
      if (n < 12) continue;
      question.resize(static_cast<std::size_t>(n));
      ++questions_;
      Bytes out;
      {
        const std::lock_guard lock(mutex_);
        out = answer_(question);
      }
      if (!out.empty()) ::sendto(fd_.get(), out.data(), out.size(), 0, from.get(), from.size);
    }
  }

  std::mutex mutex_;
  Answer answer_;
  Fd fd_;
  SocketAddress address_;
  std::atomic<int> questions_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

DnsServer::Answer always(std::vector<std::string> addresses, unsigned ttl = 1) {
  return [addresses, ttl](const Bytes& q) { return answer_to(q, addresses, ttl); };
}

class NamesTest : public testing::Test {
 protected:
  void start(const DnsServer& server) {
    NamesOptions o;
    o.server = server.address();
    names_ = std::make_unique<Names>(loop_.executor(), o, [this] { ++changes_; });
  }
  bool eventually(const std::function<bool()>& f) {
    for (int i = 0; i < 3000; ++i) {
      if (f()) return true;
      loop_.idle(std::chrono::milliseconds(10));
    }
    return false;
  }
  std::string found(const std::string& name) {
    const auto all = names_->found();
    const auto it = all.find(name);
    if (it == all.end()) return "?";
    std::string out;
    for (const auto& a : it->second) out += (out.empty() ? "" : " ") + a.to_string();
    return out;
  }
  test::Loop loop_;
  net::executor_work_guard<net::io_context::executor_type> work_{loop_.context().get_executor()};  // lookups are no work of the loop's
  std::unique_ptr<Names> names_;
  int changes_ = 0;
};

TEST_F(NamesTest, BothFamiliesAndChangesAfterTheirTime) {
  DnsServer server(always({"192.0.2.2", "192.0.2.1", "2001:db8::1"}));
  start(server);
  names_->follow({"web.example.com"});
  EXPECT_EQ(found("web.example.com"), "?") << "looking does not block";
  EXPECT_TRUE(eventually([&] { return found("web.example.com") == "192.0.2.1 192.0.2.2 2001:db8::1"; }));
  EXPECT_EQ(changes_, 1);
  server.say(always({"192.0.2.9"}));
  EXPECT_TRUE(eventually([&] { return found("web.example.com") == "192.0.2.9"; })) << "asked again; not before 5 s, though the records live 1 s";
  EXPECT_EQ(changes_, 2);
  names_->follow({});
  EXPECT_EQ(found("web.example.com"), "?");
}

TEST_F(NamesTest, SilenceKeepsWhatWasFoundAndNoSuchNameDoesNot) {
  DnsServer server(always({"192.0.2.1"}));
  start(server);
  names_->follow({"web.example.com"});
  ASSERT_TRUE(eventually([&] { return found("web.example.com") == "192.0.2.1"; }));
  server.say([](const Bytes&) { return Bytes(); });
  const auto before = server.questions();
  EXPECT_TRUE(eventually([&] { return server.questions() >= before + 3; }));
  EXPECT_EQ(found("web.example.com"), "192.0.2.1");
  server.say([](const Bytes& q) { return answer_to(q, {}, 0, 3); });
  EXPECT_TRUE(eventually([&] { return found("web.example.com").empty(); }));
}

TEST_F(NamesTest, MalformedAnswersAreNoAnswers) {
  DnsServer server([](const Bytes& q) {
    auto out = answer_to(q, {"192.0.2.1"}, 1);
    out.resize(out.size() - 3);  // the last record is cut
    return out;
  });
  start(server);
  names_->follow({"web.example.com"});
  EXPECT_TRUE(eventually([&] { return server.questions() >= 2; }));
  loop_.idle(std::chrono::milliseconds(200));
  EXPECT_EQ(found("web.example.com"), "?");
  server.say(always({"192.0.2.1"}));
  EXPECT_TRUE(eventually([&] { return found("web.example.com") == "192.0.2.1"; }));
}

TEST_F(NamesTest, EndsWhileItAsks) {
  DnsServer server([](const Bytes&) { return Bytes(); });
  start(server);
  names_->follow({"a.example.com", "b.example.com", "c.example.com"});
  EXPECT_TRUE(eventually([&] { return server.questions() > 0; }));
  const auto begin = std::chrono::steady_clock::now();
  names_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1)) << "nobody waits for a server that is silent";
}

TEST(NamesAnswer, CutAtEveryByte) {
  Bytes question{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 1, 'b', 0, 0, 1, 0, 1};
  const auto whole = answer_to(question, {"192.0.2.1", "192.0.2.2"}, 30);
  const auto all = read_answer(whole, Family::v4);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->addresses.size(), 2u);
  EXPECT_EQ(all->ttl_seconds, 30u);
  for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(read_answer(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)), Family::v4)) << n;
  EXPECT_TRUE(read_answer(whole, Family::v6)->addresses.empty());
}

}  // namespace
}  // namespace fairlead::ingress
