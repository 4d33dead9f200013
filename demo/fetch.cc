// `fairlead-demo fetch` and `probe`: a plain HTTP (and UDP) client that says which pod answered. Every request uses a new
// connection unless --keep-alive is given, so each one is a new decision of the service proxy.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>

#include "demo/identity.h"
#include "demo/options.h"
#include "demo/socket.h"

namespace fairlead::demo {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;
constexpr std::size_t kMaxReply = 1 << 20;

struct Reply {
  int status = 0;  // HTTP status; 200 for UDP and TCP
  std::string body;
  std::string error;  // set when there was no whole reply
  bool ok() const { return error.empty() && status >= 200 && status < 400; }
};

class Fetcher {
 public:
  Fetcher(Url url, Milliseconds timeout, bool keep_alive) : url_(std::move(url)), timeout_(timeout), keep_alive_(keep_alive) {}
  ~Fetcher() { drop(); }
  Fetcher(const Fetcher&) = delete;
  Fetcher& operator=(const Fetcher&) = delete;
  Reply once();

 private:
  Reply http(SteadyClock::time_point deadline);
  Reply udp(SteadyClock::time_point deadline);
  bool connect(Reply& reply);
  bool send_all(const std::string& bytes, SteadyClock::time_point deadline) const;
  void drop() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  Url url_;
  Milliseconds timeout_;
  bool keep_alive_;
  std::vector<Endpoint> addresses_;
  int fd_ = -1;
};

std::string last_error() { return errno == 0 ? "closed" : std::strerror(errno); }

Reply Fetcher::once() {
  if (addresses_.empty()) addresses_ = resolve(url_.host, url_.port);
  Reply reply;
  if (addresses_.empty()) {
    reply.error = "no address for " + url_.host;
    return reply;
  }
  const auto deadline = SteadyClock::now() + timeout_;
  if (url_.scheme == "udp") return udp(deadline);
  if (url_.scheme == "http") return http(deadline);
  if (connect(reply)) reply.status = 200;
  drop();
  return reply;
}

bool Fetcher::connect(Reply& reply) {
  for (const Endpoint& to : addresses_) {
    fd_ = connect_to(to, timeout_);
    if (fd_ >= 0) return true;
    reply.error = "connect " + to.to_string() + ": " + last_error();
  }
  return false;
}

bool Fetcher::send_all(const std::string& bytes, SteadyClock::time_point deadline) const {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<std::size_t>(n);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (n < 0 && !wait_for(fd_, POLLOUT, deadline)) return errno = ETIMEDOUT, false;
  }
  return true;
}

// The body's size by Content-Length; npos when it lasts until the connection closes.
std::size_t content_length(const std::string& head) {
  std::string lower = head;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto at = lower.find("\r\ncontent-length:");
  if (at == std::string::npos) return std::string::npos;
  return std::strtoul(lower.c_str() + at + 17, nullptr, 10);
}

Reply Fetcher::http(SteadyClock::time_point deadline) {
  Reply reply;
  if (fd_ < 0 && !connect(reply)) return reply;
  reply.error.clear();
  const std::string request = "GET " + url_.path + " HTTP/1.1\r\nHost: " + url_.host + ":" + std::to_string(url_.port) +
                              "\r\nUser-Agent: fairlead-demo\r\nConnection: " + (keep_alive_ ? "keep-alive" : "close") +
                              "\r\n\r\n";
  std::string in;
  std::size_t need = std::string::npos;
  bool ended = false;
  if (!send_all(request, deadline)) reply.error = "send: " + last_error();
  while (reply.error.empty() && !ended && in.size() < need) {
    char buffer[16384];
    if (!wait_for(fd_, POLLIN, deadline)) {
      reply.error = "timed out waiting for the reply";
      break;
    }
    const ssize_t n = ::read(fd_, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n < 0) reply.error = "read: " + last_error();
    if (n == 0) ended = true;
    if (n > 0) in.append(buffer, static_cast<std::size_t>(n));
    const auto head = in.find("\r\n\r\n");
    if (head != std::string::npos && need == std::string::npos) {
      const std::size_t length = content_length(in.substr(0, head + 2));
      if (length != std::string::npos) need = head + 4 + length;
    }
    if (in.size() > kMaxReply) reply.error = "reply larger than 1 MiB";
  }
  const auto head = in.find("\r\n\r\n");
  if (reply.error.empty() && (head == std::string::npos || in.compare(0, 5, "HTTP/") != 0 || in.size() < 12))
    reply.error = in.empty() ? "closed without a reply" : "not an HTTP reply";
  if (reply.error.empty() && need != std::string::npos && in.size() < need) reply.error = "closed in the middle of the reply";
  if (reply.error.empty()) {
    reply.status = std::atoi(in.c_str() + 9);
    reply.body = in.substr(head + 4, need == std::string::npos ? need : need - head - 4);
  }
  const bool server_closes = in.find("Connection: close") < head;
  if (!keep_alive_ || ended || server_closes || !reply.error.empty()) drop();
  return reply;
}

Reply Fetcher::udp(SteadyClock::time_point deadline) {
  Reply reply;
  const Endpoint& to = addresses_.front();
  if (fd_ < 0) fd_ = ::socket(to.get()->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0 || ::connect(fd_, to.get(), to.size) != 0 || ::send(fd_, "hello\n", 6, 0) != 6) {
    reply.error = "send to " + to.to_string() + ": " + last_error();
  } else if (!wait_for(fd_, POLLIN, deadline)) {
    reply.error = "no reply from " + to.to_string();
  } else {
    char buffer[4096];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n < 0) reply.error = "receive: " + last_error();
    if (n >= 0) {
      reply.status = 200;
      reply.body.assign(buffer, static_cast<std::size_t>(n));
    }
  }
  if (!keep_alive_ || !reply.error.empty()) drop();
  return reply;
}

void sleep_ms(Milliseconds t) {
  timespec left{t.count() / 1000, (t.count() % 1000) * 1'000'000};
  while (::nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

struct Tally {
  long ok = 0, failed = 0, retried = 0;
  std::map<std::string, long> by_pod;
  std::vector<double> milliseconds;
};

void print_summary(Tally& tally) {
  std::sort(tally.milliseconds.begin(), tally.milliseconds.end());
  const auto at = [&](double q) {
    return tally.milliseconds.empty()
               ? 0.0
               : tally.milliseconds[static_cast<std::size_t>(q * static_cast<double>(tally.milliseconds.size() - 1))];
  };
  std::printf("requests %ld, failed %ld, retried %ld; ms: median %.2f, p99 %.2f, max %.2f\n", tally.ok + tally.failed,
              tally.failed, tally.retried, at(0.5), at(0.99), at(1));
  for (const auto& [pod, count] : tally.by_pod) std::printf("%6ld  %s\n", count, pod.c_str());
}

}  // namespace

int run_fetch(int argc, char** argv) {
  const Options options =
      Options::parse(argc, argv, {"--count", "--interval", "--timeout", "--retry"}, {"--summary", "--keep-alive", "--body"});
  Url url;
  if (options.words().size() != 1 || !parse_url(options.words()[0], url))
    usage_error("fetch needs one URL (http://host:port/path or udp://host:port)");
  const std::string retry = options.text("--retry", "never");
  if (retry != "never" && retry != "once") usage_error("--retry: \"" + retry + "\" is neither never nor once");
  const long count = options.number("--count", 1, 1, 1'000'000'000);
  const Milliseconds interval = options.duration("--interval", Milliseconds(0), "ms");
  Fetcher fetcher(url, options.duration("--timeout", Milliseconds(2000), "ms"), options.has("--keep-alive"));
  Tally tally;
  for (long i = 0; i < count; ++i) {
    if (i > 0 && interval.count() > 0) sleep_ms(interval);
    const auto start = SteadyClock::now();
    Reply reply = fetcher.once();
    if (!reply.ok() && retry == "once") {
      ++tally.retried;
      reply = fetcher.once();
    }
    const double ms = std::chrono::duration<double, std::milli>(SteadyClock::now() - start).count();
    if (tally.milliseconds.size() < 1'000'000) tally.milliseconds.push_back(ms);
    reply.ok() ? ++tally.ok : ++tally.failed;
    const std::string pod = json_member(reply.body, "pod");
    if (reply.ok()) ++tally.by_pod[pod.empty() ? "?" : pod];
    if (!reply.ok())
      std::fprintf(stderr, "%s %d %s%s\n", url.host.c_str(), reply.status, reply.error.c_str(), reply.body.c_str());
    if (options.has("--body") && reply.ok()) std::fwrite(reply.body.data(), 1, reply.body.size(), stdout);
    if (!options.has("--summary") && !options.has("--body") && reply.ok())
      std::printf("%d pod=%s node=%s client=%s version=%s %.2f ms\n", reply.status, pod.c_str(),
                  json_member(reply.body, "node").c_str(), json_member(reply.body, "client").c_str(),
                  json_member(reply.body, "version").c_str(), ms);
    std::fflush(stdout);
  }
  if (options.has("--summary")) print_summary(tally);
  return tally.failed == 0 ? 0 : 1;
}

int run_probe(int argc, char** argv) {
  const Options options = Options::parse(argc, argv, {"--timeout"}, {});
  if (options.words().size() != 1) usage_error("probe needs one URL or file");
  const std::string& what = options.words()[0];
  if (what.find("://") == std::string::npos) {
    if (::access(what.c_str(), F_OK) == 0) return 0;
    std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
    return 1;
  }
  Url url;
  if (!parse_url(what, url)) usage_error("probe: \"" + what + "\" is not an http://, tcp:// or udp:// address with a port");
  Fetcher fetcher(url, options.duration("--timeout", Milliseconds(1000), "ms"), false);
  const Reply reply = fetcher.once();
  if (!reply.ok()) std::fprintf(stderr, "%s: status %d %s\n", what.c_str(), reply.status, reply.error.c_str());
  return reply.ok() ? 0 : 1;
}

}  // namespace fairlead::demo
