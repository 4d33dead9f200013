// For tests of several servers on one store: the store (ours, or Debian's etcd), the server processes, and asking them.
#pragma once

#include <boost/json.hpp>
#include <optional>

#include "base/files.h"
#include "base/http/client.h"
#include "controlplane/etcd/server.h"
#include "controlplane/etcd/store.h"
#include "tests/controlplane/etcd/real_etcd.h"

namespace fairlead::apiserver {

namespace json = boost::json;

struct Answer {
  unsigned status = 0;  // 0: none came
  std::string body;
  std::string at(std::string_view pointer) const {
    boost::system::error_code ec;
    const auto v = json::parse(body, ec);
    if (ec) return "";
    const auto* p = v.find_pointer(pointer, ec);
    if (!p) return "";
    return p->is_string() ? std::string(p->get_string()) : json::serialize(*p);
  }
};

inline http::Request request(std::string method, std::string target, std::string body = {}) {
  http::Request r;
  r.method = std::move(method);
  r.target = std::move(target);
  std::replace(body.begin(), body.end(), '\'', '"');
  r.body = std::move(body);
  r.headers.add("Authorization", "Bearer test-token");
  if (!r.body.empty()) r.headers.add("Content-Type", "application/json");
  return r;
}

inline Task<Answer> send(std::shared_ptr<http::Client> client, http::Request r) {
  auto got = co_await client->request(std::move(r), std::chrono::seconds(60));
  Answer out;
  if (got) {
    out.status = got->status;
    out.body = std::move(got->body);
  }
  co_return out;
}

// The store that the servers share.
class SharedStore {
 public:
  explicit SharedStore(bool real) {
    if (real) {
      etcd_.emplace();
      kv_ = etcd_->connect();
      url_ = etcd_->url(0);
      return;
    }
    store_ = etcd::Store::open(dir_.path()).value();
    etcd::ServerOptions o;
    o.listen = {"127.0.0.1:0"};
    server_ = etcd::Server::start(*store_, o).value();
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
    kv_ = etcd::Remote::connect({.endpoints = {url_}}).value();
  }
  ~SharedStore() {
    kv_.reset();
    server_.reset();
    store_.reset();
  }
  const std::string& url() const { return url_; }
  etcd::Kv& kv() { return *kv_; }
  void raise_no_space() { store_->set_settings({{etcd::kAlarmNoSpace, ""}}, [](Result<etcd::Revision>) {}); }
  std::vector<etcd::KeyValue> keys(const std::string& prefix) {
    etcd::RangeRequest r;
    r.key = prefix;
    r.range_end = etcd::prefix_end(prefix);
    return etcd::await(kv_->range(r)).value().kvs;
  }

 private:
  etcd::TempDir dir_;
  std::unique_ptr<etcd::Store> store_;
  std::unique_ptr<etcd::Server> server_;
  std::optional<etcd::RealEtcd> etcd_;
  std::shared_ptr<etcd::Remote> kv_;
  std::string url_;
};

// `fairlead apiserver`, or another command with its flags, on that store.
class ServerProcess {
 public:
  ServerProcess(const std::string& dir, const std::string& store, int number, std::vector<std::string> more = {}, const std::string& command = "apiserver",
                const std::string& port = "0") {
    const char* bin = ::getenv("FAIRLEAD_BIN");
    log_ = fmt::format("{}/server{}.log", dir, number);
    ::unlink(log_.c_str());  // an earlier one's
    ProcessOptions o;
    o.argv = {std::string(bin ? bin : "build/release/bin") + "/fairlead", command, "--etcd-servers", store, "--bind-address", "127.0.0.1",
              "--secure-port", port, "--advertise-address", fmt::format("192.0.2.{}", number), "--service-cluster-ip-range", "10.96.0.0/27",
              "--service-node-port-range", "30000-30019", "--tls-cert-file", dir + "/server.crt", "--tls-private-key-file", dir + "/server.key",
              "--token-auth-file", dir + "/tokens.csv", "--threads", "2"};
    o.argv.insert(o.argv.end(), more.begin(), more.end());
    o.stdout_file = o.stderr_file = log_;
    o.death_signal = SIGKILL;
    process_.emplace(Process::start(o).value());
    for (int i = 0; i < 600 && url_.empty(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      const auto text = read_file(log_).value_or("");
      const std::string ready = "apiserver listening on ";
      if (const auto at = text.find(ready); at != std::string::npos)
        if (const auto end = text.find_first_of("\n\"", at); end != std::string::npos)
          url_ = "https://" + text.substr(at + ready.size(), end - at - ready.size());
      if (auto status = process_->poll(); status && *status) break;
    }
    if (url_.empty()) throw std::runtime_error("the apiserver did not start:\n" + read_file(log_).value_or(""));
  }
  ~ServerProcess() { kill(SIGTERM); }
  void kill(int signal) {
    if (!process_) return;
    (void)process_->kill(signal);
    (void)process_->wait();
    process_.reset();
  }
  std::shared_ptr<http::Client> client(net::any_io_executor executor, const std::string& ca) const {
    http::ClientOptions o;
    o.base_url = url_;
    o.tls.emplace();
    o.tls->ca_pem = ca;
    o.max_idle_connections = 64;
    return *http::make_client(executor, o);
  }

 private:
  std::string log_, url_;
  std::optional<Process> process_;
};

}  // namespace fairlead::apiserver
