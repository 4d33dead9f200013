// The router in the test's own process, for tests that talk to it byte by byte.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "ingress/runtime/client_auth.h"
#include "ingress/runtime/router.h"
#include "tests/ingress/http2_wire.h"
#include "tests/ingress/net.h"
#include "tests/ingress/world.h"

namespace fairlead::ingress {

inline std::string prefix() { return "nginx.ingress.kubernetes.io/"; }

// A router on free ports of loopback. What the objects are told off for fails the test, unless it says so.
class Serving {
 public:
  explicit Serving(const std::string& yaml, WorkerOptions options = {}, unsigned threads = 1, bool blameless = true) {
    ::signal(SIGPIPE, SIG_IGN);  // as the daemon does: OpenSSL writes without MSG_NOSIGNAL
    CompileOptions compile;
    compile.any_class_if_none = compile.local_addresses = true;
    compile.threads = threads;
    compile.load_certificate = [](const std::string& chain, const std::string& key) { return load_certificate(chain, key); };
    compile.load_connector = [](const BackendTls& tls, bool http2, const std::string& ca, const std::string& chain, const std::string& key) { return load_connector(tls, http2, ca, chain, key); };
    compile.load_authorities = [](const std::string& ca, const std::string& crl) { return load_authorities(ca, crl); };
    if (!options.https.empty()) compile.fallback_certificate = make_fallback_certificate().value_or(nullptr);
    compiler_ = std::make_unique<Compiler>(compile);
    options.http = {{IpAddress::v4(127, 0, 0, 1), 0}};
    options.https_port = 0;
    auto made = compiler_->compile(objects_from(yaml));
    for (const auto& d : made.diagnostics)
      if (blameless) ADD_FAILURE() << d.text();
    auto router = Router::start(options, threads, made.table);
    if (!router) std::fprintf(stderr, "%s\n", router.error().message.c_str()), std::abort();
    router_ = std::move(*router);
  }
  void change(const std::string& yaml) { change(objects_from(yaml)); }
  Compiled change(const Objects& objects) {
    auto made = compiler_->compile(objects);
    router_->set_table(made.table);
    return made;
  }
  Stream connect() { return Stream::to(router_->bound().at(0)); }
  std::string ask(const std::string& request) {
    auto s = connect();
    s.send(request);
    return s.message();
  }
  Router& router() { return *router_; }
  std::uint64_t metric(const std::string& name) {
    const auto text = router_->metrics_text();
    const auto at = text.find("\n" + name);
    return at == std::string::npos ? 0 : std::strtoull(text.c_str() + text.find(' ', at + name.size()), nullptr, 10);
  }

 private:
  std::unique_ptr<Compiler> compiler_;
  std::unique_ptr<Router> router_;
};

inline std::string one_service(const std::string& name, int port, const std::string& annotations = "{}", const std::vector<std::string>& addresses = {"127.0.0.1"}, const std::string& host = "h") {
  return service_yaml(name, addresses, "default", port) + ingress_yaml(name, host, "/", "Prefix", name, annotations);
}

inline const std::string kGet = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";

// Waits for something that other threads bring about.
template <typename F>
bool eventually(F&& f) {
  for (int i = 0; i < 2000; ++i) {
    if (f()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace fairlead::ingress
