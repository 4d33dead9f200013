// Clients that other people wrote: openssl s_client for versions, ALPN and certificates by name, curl in HTTP/1.1 and HTTP/2, h2load,
// and a WebSocket client and server (Boost.Beast) with the router between them.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>

#include "base/pki.h"
#include "base/process.h"
#include "tests/ingress/serving.h"

namespace fairlead::ingress {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string run(std::vector<std::string> argv) {
  ProcessOptions o;
  o.argv = std::move(argv);
  o.stdin_file = "/dev/null";
  const auto r = run_command(o, {}, std::chrono::seconds(90));
  return r ? r->stdout_text + r->stderr_text : r.error().message;
}

class Clients : public testing::Test {
 protected:
  Clients() {
    WorkerOptions o;
    o.https = {{IpAddress::v4(127, 0, 0, 1), 0}};
    const auto tls = [](const std::string& name) { return fmt::format("tls: [{{hosts: [\"{0}\"], secretName: {1}}}]", name, name.front() == '*' ? "wild" : name.substr(0, 1)); };
    const auto off = "{" + prefix() + "ssl-redirect: \"false\", " + prefix() + "proxy-body-size: \"0\"}";
    std::string yaml = service_yaml("web", {"127.0.0.1"}, "default", backend.port());
    for (const std::string name : {"a.example", "b.example", "*.w.example"}) {
      const auto pair = *pki::make_server(ca, {"of " + name, {}}, {{name}, {}}, std::chrono::hours(1));
      const auto secret = name.front() == '*' ? "wild" : name.substr(0, 1);
      yaml += ingress_yaml(secret, name, "/", "Prefix", "web", off, tls(name)) + secret_yaml(secret, "", pair.certificate_pem, pair.key_pem);
    }
    router = std::make_unique<Serving>(yaml, o);
    http = router->router().bound().at(0);
    https = router->router().bound().at(1);
  }
  std::string s_client(std::vector<std::string> more) const {
    std::vector<std::string> argv{"openssl", "s_client", "-connect", https.to_string()};
    argv.insert(argv.end(), more.begin(), more.end());
    return run(argv);
  }
  std::string curl(std::vector<std::string> more, const std::string& url) const {
    std::vector<std::string> argv{"curl", "-sS", "-k", "--max-time", "60", "--resolve", fmt::format("a.example:{}:127.0.0.1", http.port), "--resolve", fmt::format("a.example:{}:127.0.0.1", https.port)};
    argv.insert(argv.end(), more.begin(), more.end());
    argv.push_back(url);
    return run(argv);
  }

  pki::KeyPair ca = *pki::make_ca("clients", std::chrono::hours(1));
  Backends backend{answering([](const std::string& r) { return r.starts_with("POST") ? ok(std::to_string(r.size() - r.find("\r\n\r\n") - 4)) : ok(r.substr(0, r.find('\r'))); })};
  std::unique_ptr<Serving> router;
  SocketAddress http, https;
};

TEST_F(Clients, OpensslAgreesOnVersionsAlpnAndNames) {
  struct Row {
    std::vector<std::string> flags;
    const char* there;
    const char* not_there;
  };
  for (const auto& r : std::vector<Row>{
           {{"-servername", "a.example", "-tls1_3"}, "TLSv1.3", "TLSv1.2,"},
           {{"-servername", "a.example", "-tls1_2"}, "TLSv1.2", "TLSv1.3,"},
           {{"-servername", "a.example", "-tls1_1", "-cipher", "ALL@SECLEVEL=0"}, "alert protocol version", "of a.example"},
           {{"-servername", "a.example", "-tls1_2", "-cipher", "AES128-SHA"}, "alert handshake failure", "of a.example"},
           {{"-servername", "a.example", "-alpn", "h2,http/1.1"}, "ALPN protocol: h2", "No ALPN"},
           {{"-servername", "a.example", "-alpn", "http/1.1"}, "ALPN protocol: http/1.1", "No ALPN"},
           {{"-servername", "a.example", "-alpn", "spdy/3"}, "No ALPN negotiated", "ALPN protocol"},
           {{"-servername", "a.example"}, "CN = of a.example", "b.example"},
           {{"-servername", "B.EXAMPLE"}, "CN = of b.example", "a.example"},
           {{"-servername", "x.w.example"}, "CN = of *.w.example", "a.example"},
           {{"-servername", "x.y.w.example"}, "CONNECTED", "w.example\n"},
           {{"-noservername"}, "CONNECTED", "of a.example"},
       })
    EXPECT_THAT(s_client(r.flags), AllOf(HasSubstr(r.there), Not(HasSubstr(r.not_there)))) << r.flags.back();
}

TEST_F(Clients, CurlInEachVersion) {
  const auto plain = fmt::format("http://a.example:{}/x", http.port), secure = fmt::format("https://a.example:{}/x", https.port);
  const std::vector<std::string> version{"-o", "/dev/null", "-w", "%{http_version} %{http_code}"};
  const auto with = [&](const std::string& flag) {
    auto v = version;
    v.push_back(flag);
    return v;
  };
  EXPECT_EQ(curl(with("--http1.0"), plain), "1.1 200");  // an answer's version is the server's own
  EXPECT_EQ(curl(with("--http1.1"), plain), "1.1 200");
  EXPECT_EQ(curl(with("--http2-prior-knowledge"), plain), "2 200");
  EXPECT_EQ(curl(with("--http1.1"), secure), "1.1 200");
  EXPECT_EQ(curl(with("--http2"), secure), "2 200");
  const std::string megabyte(1 << 20, 'z');
  for (const auto* flag : {"--http1.1", "--http2"}) EXPECT_EQ(curl({flag, "--data-binary", megabyte.substr(0, 100'000)}, secure), "100000");
}

TEST_F(Clients, H2loadInTheClearAndOverTls) {
  for (const auto& url : {fmt::format("http://127.0.0.1:{}/x", http.port), fmt::format("https://127.0.0.1:{}/x", https.port)})
    EXPECT_THAT(run({"h2load", "-n", "2000", "-c", "10", "-m", "20", "-H", ":authority: a.example", url}), HasSubstr("2000 succeeded, 0 failed, 0 errored"));
}

namespace net = boost::asio;
namespace ws = boost::beast::websocket;

void websocket_echo(Stream s) {
  net::io_context io;
  ws::stream<net::ip::tcp::socket> socket(io);
  socket.next_layer().assign(net::ip::tcp::v4(), ::dup(s.fd()));
  boost::system::error_code ec;
  socket.accept(ec);
  while (!ec) {
    boost::beast::flat_buffer in;
    socket.read(in, ec);
    if (ec) break;
    socket.binary(socket.got_binary());
    socket.write(in.data(), ec);
  }
}

TEST(WebSocket, MessagesOfAllSizesAndAnEndThatBothAgreeOn) {
  Backends backend(websocket_echo);
  Serving s(one_service("web", backend.port()));
  net::io_context io;
  ws::stream<net::ip::tcp::socket> client(io);
  client.next_layer().connect({net::ip::make_address("127.0.0.1"), s.router().bound().at(0).port});
  client.handshake("h", "/chat");
  client.binary(true);
  for (const std::size_t size : {0, 1, 125, 126, 65'535, 65'536, 3'000'000}) {
    const std::string sent(size, 'w');
    std::thread writer([&] { client.write(net::buffer(sent)); });
    boost::beast::flat_buffer in;
    client.read(in);
    writer.join();
    EXPECT_EQ(boost::beast::buffers_to_string(in.data()), sent) << size;
  }
  s.change(one_service("other", backend.port()));
  client.write(net::buffer(std::string("still there")));
  boost::beast::flat_buffer in;
  client.read(in);
  EXPECT_EQ(boost::beast::buffers_to_string(in.data()), "still there") << "a change of the routes ends no WebSocket";
  boost::system::error_code ec;
  client.close(ws::close_code::normal, ec);
  EXPECT_FALSE(ec) << ec.message();
}

}  // namespace
}  // namespace fairlead::ingress
