#include "tests/controlplane/apiserver/test_server.h"

#include <stdlib.h>

#include <filesystem>
#include <stdexcept>
#include <thread>

#include "base/files.h"
#include "base/process.h"
#include "controlplane/etcd/store.h"
#include "kube/kubeconfig.h"

namespace fairlead::apiserver::test {
namespace {

constexpr auto kYear = std::chrono::hours(24 * 365);

template <typename T>
T must(Result<T> r) {
  if (!r) throw std::runtime_error(r.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*r);
}

}  // namespace

struct TestServer::Running {
  net::io_context io{2};
  std::unique_ptr<etcd::Store> store;
  std::unique_ptr<Apiserver> server;
  std::vector<std::thread> threads;
};

TestServer::TestServer(Tune tune, std::string dir) : dir_(std::move(dir)), temporary_(dir_.empty()), tune_(std::move(tune)) {
  if (temporary_) {
    char path[] = "/tmp/fairlead-apiserver-test-XXXXXX";
    if (!::mkdtemp(path)) throw std::runtime_error("mkdtemp");
    dir_ = path;
  } else {
    must(make_dirs(dir_));
  }
  ca_ = must(pki::make_ca("test-ca", kYear));
  const auto server = must(pki::make_server(ca_, {"kube-apiserver", {}}, {{"localhost", "kubernetes"}, {IpAddress::v4(127, 0, 0, 1)}}, kYear));
  must(write_file_atomic(dir_ + "/ca.crt", ca_.certificate_pem));
  must(write_file_atomic(dir_ + "/ca.key", ca_.key_pem, 0600));
  must(write_file_atomic(dir_ + "/server.crt", server.certificate_pem));
  must(write_file_atomic(dir_ + "/server.key", server.key_pem, 0600));
  must(write_file_atomic(dir_ + "/sa.key", must(pki::make_rsa_key(2048)), 0600));
  must(write_file_atomic(dir_ + "/tokens.csv", "test-token,token-user,7,\"system:masters\"\nplain-token,plain-user,8\n", 0600));
  start();
}

TestServer::~TestServer() {
  stop();
  if (temporary_) std::filesystem::remove_all(dir_);
}

void TestServer::start() {
  running_ = std::make_unique<Running>();
  running_->store = must(etcd::Store::open(dir_ + "/store"));
  Options o;
  o.listen = {IpAddress::v4(127, 0, 0, 1), port_};
  o.tls_certificate_file = dir_ + "/server.crt";
  o.tls_key_file = dir_ + "/server.key";
  o.client_ca_file = dir_ + "/ca.crt";
  o.token_file = dir_ + "/tokens.csv";
  o.service_account_signing_key_file = dir_ + "/sa.key";
  o.advertise_address = IpAddress::v4(192, 0, 2, 1);
  o.service_cidrs = {*Prefix::parse("10.96.0.0/16")};
  if (tune_) tune_(o);
  std::optional<Result<std::unique_ptr<Apiserver>>> started;
  auto body = [](net::any_io_executor executor, etcd::Kv* kv, Options options,
                 std::optional<Result<std::unique_ptr<Apiserver>>>* out) -> Task<> {
    auto r = co_await apiserver::start(executor, *kv, std::move(options));
    out->emplace(std::move(r));
  };
  net::co_spawn(running_->io, body(running_->io.get_executor(), running_->store.get(), std::move(o), &started), net::detached);
  while (!started && running_->io.run_one_for(std::chrono::seconds(30))) {
  }
  if (!started) throw std::runtime_error("the apiserver did not start within 30 s");
  running_->server = must(std::move(*started));
  port_ = running_->server->address().port;
  for (int i = 0; i < 2; ++i) running_->threads.emplace_back([io = &running_->io] {
      const auto work = net::make_work_guard(*io);
      io->run();
    });
}

void TestServer::stop() {
  if (!running_) return;
  if (running_->server) {
    auto* server = running_->server.get();
    net::co_spawn(running_->io, [server] { return server->stop(); }, [io = &running_->io](std::exception_ptr) { io->stop(); });
  }
  for (auto& t : running_->threads) t.join();
  running_->server.reset();
  running_->store.reset();
  running_.reset();
}

void TestServer::restart() {
  stop();
  start();
}

std::string TestServer::url() const { return "https://127.0.0.1:" + std::to_string(port_); }

std::string TestServer::kubeconfig(const std::string& user, const std::vector<std::string>& groups) {
  const auto client = must(pki::make_client(ca_, {user, groups}, kYear));
  kube::RestConfig c;
  c.server = url();
  c.ca_pem = ca_.certificate_pem;
  c.certificate_pem = client.certificate_pem;
  c.key_pem = client.key_pem;
  const auto path = dir_ + "/" + user + ".kubeconfig";
  must(write_file_atomic(path, kube::write_kubeconfig(c, "test", user), 0600));
  return path;
}

Ran run_shell(const std::string& kubeconfig, const std::string& command, const std::string& input) {
  ProcessOptions p;
  p.argv = {"/bin/sh", "-c", command};
  p.environment = {"KUBECONFIG=" + kubeconfig, "HOME=" + std::filesystem::path(kubeconfig).parent_path().string(),
                   "PATH=" + std::string(::getenv("PATH"))};
  const auto r = run_command(p, input);
  if (!r) return {-1, "", r.error().message};
  return {r->status.signal ? 128 + r->status.signal : r->status.code, r->stdout_text, r->stderr_text};
}

void make_default_service_account(const std::string& kubeconfig, const std::string& kubectl, const std::string& ns) {
  run_shell(kubeconfig, kubectl + " create serviceaccount default -n " + ns);
}

}  // namespace fairlead::apiserver::test
