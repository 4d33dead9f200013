// etcdctl as people use it, 3.4 and 3.5 (etcd_tools.h), against our server: every command of the store's promise.
#include <gtest/gtest.h>

#include <thread>

#include "base/files.h"
#include "base/pki.h"
#include "base/process.h"
#include "controlplane/etcd/remote.h"
#include "controlplane/etcd/server.h"
#include "controlplane/etcd/snapshot.h"
#include "tests/controlplane/etcd/etcd_tools.h"
#include "tests/controlplane/etcd/testing.h"

namespace fairlead::etcd {
namespace {

using testing::Test;

struct Out {
  bool ok;
  std::string text;    // stdout
  std::string errors;  // stderr
};

class Etcdctl : public Test {
 protected:
  void SetUp() override {
    if (!has_etcd_tool("etcdctl")) GTEST_SKIP() << etcd_tool("etcdctl") << " is not there";
    start();
  }
  void start(ServerOptions o = {}) {
    server_.reset();
    if (!store_) store_ = Store::open(dir_.path() + "/store").value();
    o.listen = {"127.0.0.1:" + std::to_string(port_)};
    o.advertise_urls = {"http://127.0.0.1:2379"};
    o.progress_interval = std::chrono::milliseconds(200);
    auto s = Server::start(*store_, o);
    ASSERT_TRUE(s) << s.error().message;
    server_ = std::move(*s);
    port_ = server_->port();
  }
  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }
  Out run(std::vector<std::string> argv, const std::string& input = {}, int seconds = 20) {
    ProcessOptions o;
    o.argv = {"timeout", "-s", "INT", std::to_string(seconds)};
    for (auto& a : argv) o.argv.push_back(a == "etcdctl" ? etcd_tool(a) : a);
    o.environment = {"PATH=/usr/bin:/bin", "ETCDCTL_API=3", "HOME=/tmp"};
    auto r = run_command(o, input);
    if (!r) return {false, "", r.error().message};
    return {r->status.ok(), r->stdout_text, r->stderr_text};
  }
  Out ctl(std::vector<std::string> args, const std::string& input = {}) {
    args.insert(args.begin(), {"etcdctl", "--endpoints", endpoint()});
    return run(std::move(args), input);
  }
  std::string good(std::vector<std::string> args, const std::string& input = {}) {
    auto out = ctl(args, input);
    EXPECT_TRUE(out.ok) << args[0] << ": " << out.text << out.errors;
    return out.text;
  }
  std::string bad(std::vector<std::string> args, const std::string& input = {}) {
    auto out = ctl(args, input);
    EXPECT_FALSE(out.ok) << args[0] << ": " << out.text;
    return out.errors + out.text;
  }
  static bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

  TempDir dir_;
  int port_ = 0;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Server> server_;
};

TEST_F(Etcdctl, KeysAndTransactions) {
  EXPECT_EQ(good({"put", "a", "1"}), "OK\n");
  good({"put", "a", "2"});
  good({"put", "b", "3"});
  EXPECT_EQ(good({"get", "a"}), "a\n2\n");
  EXPECT_EQ(good({"get", "a", "--rev=2"}), "a\n1\n");
  EXPECT_EQ(good({"get", "", "--prefix", "--keys-only"}), "a\n\nb\n\n");
  EXPECT_EQ(good({"get", "a", "z", "--limit=1"}), "a\n2\n");
  EXPECT_EQ(good({"get", "a", "--from-key", "--order=DESCEND", "--print-value-only"}), "3\n2\n");
  EXPECT_EQ(good({"get", "", "--prefix", "--sort-by=VALUE", "--order=DESCEND", "--print-value-only"}), "3\n2\n");
  EXPECT_TRUE(has(good({"get", "a", "-w", "json"}), "\"version\":2"));
  EXPECT_EQ(good({"put", "a", "4", "--prev-kv"}), "OK\na\n2\n");
  EXPECT_EQ(good({"del", "a", "--prev-kv"}), "1\na\n4\n");
  EXPECT_EQ(good({"del", "nothing"}), "0\n");
  EXPECT_EQ(good({"txn"}, "mod(\"b\") > \"0\"\n\nput c yes\nget b\n\nput c no\n\n"), "SUCCESS\n\nOK\n\nb\n3\n");
  EXPECT_EQ(good({"txn"}, "value(\"c\") = \"x\"\n\nput d yes\n\nget c\n\n"), "FAILURE\n\nc\nyes\n");
  EXPECT_TRUE(has(bad({"put", "", "x"}), "etcdserver: key is not provided"));
  EXPECT_TRUE(has(bad({"get", "a", "--rev=1000"}), "etcdserver: mvcc: required revision is a future revision"));
  EXPECT_TRUE(has(bad({"txn"}, "\nput k 1\nput k 2\n\n\n"), "etcdserver: duplicate key given in txn request"));
  EXPECT_TRUE(has(bad({"put", "k", "v", "--lease=1234"}), "etcdserver: requested lease not found"));
  EXPECT_TRUE(has(bad({"put", "big"}, std::string(1600 * 1024, 'x')), "etcdserver: request is too large"));
  good({"compact", "5"});
  EXPECT_TRUE(has(bad({"get", "a", "--rev=2"}), "etcdserver: mvcc: required revision has been compacted"));
  EXPECT_TRUE(has(bad({"compact", "5"}), "etcdserver: mvcc: required revision has been compacted"));
}

TEST_F(Etcdctl, WatchesFromNowAndFromThePast) {
  good({"put", "w1", "old"});
  std::string live;
  std::thread watcher([&] { live = ctl({"watch", "w", "--prefix", "--prev-kv"}).text; });
  // The watch is there when its event comes back; until then the marker is written again.
  for (int i = 0; i < 100 && store_->status().watchers == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_EQ(store_->status().watchers, 1u);
  good({"put", "w1", "new"});
  good({"del", "w1"});
  EXPECT_TRUE(has(run({"timeout", "-s", "INT", "2", "etcdctl", "--endpoints", endpoint(), "watch", "w1", "--rev=2"}).text, "PUT\nw1\nold\nPUT\nw1\nnew\nDELETE\nw1\n"));
  // etcdctl 3.4 has no flag for progress notes.
  auto client = Remote::connect({.endpoints = {"http://" + endpoint()}}).value();
  const WatchRequest idle{.key = "zz", .progress_notify = true};
  auto notes = await(client->watch(idle)).value();
  auto note = await_for(notes->next(), std::chrono::seconds(10));
  ASSERT_TRUE(note && *note);
  EXPECT_TRUE((*note)->events.empty());
  EXPECT_EQ((*note)->revision, 4);
  good({"compact", "4"});
  EXPECT_TRUE(has(bad({"watch", "w1", "--rev=2"}), "etcdserver: mvcc: required revision has been compacted"));
  watcher.join();
  EXPECT_EQ(live, "PUT\nw1\nold\nw1\nnew\nDELETE\nw1\nnew\nw1\n\n");
}

TEST_F(Etcdctl, LeasesLocksAndElections) {
  const auto granted = good({"lease", "grant", "60"});
  ASSERT_TRUE(has(granted, " granted with TTL(60s)"));
  const auto id = granted.substr(6, 16);
  good({"put", "leased", "x", "--lease=" + id});
  EXPECT_TRUE(has(good({"lease", "timetolive", id, "--keys"}), "attached keys([leased])"));
  EXPECT_TRUE(has(good({"lease", "list"}), id));
  EXPECT_TRUE(has(good({"lease", "keep-alive", "--once", id}), "keepalived with TTL(60)"));
  good({"lease", "revoke", id});
  EXPECT_EQ(good({"get", "leased"}), "");
  EXPECT_TRUE(has(bad({"lease", "revoke", id}), "etcdserver: requested lease not found"));
  EXPECT_TRUE(has(good({"lock", "mutex", "echo", "held"}), "held"));
  const auto elected = run({"timeout", "-s", "INT", "3", "etcdctl", "--endpoints", endpoint(), "elect", "office", "me"});
  EXPECT_TRUE(has(elected.text, "me")) << elected.errors;
}

TEST_F(Etcdctl, Maintenance) {
  good({"put", "a", "1"});
  EXPECT_TRUE(has(good({"endpoint", "status", "-w", "json"}), "\"version\":\"3.5.21\""));
  EXPECT_TRUE(has(good({"endpoint", "health"}) + ctl({"endpoint", "health"}).errors, "is healthy"));
  EXPECT_TRUE(has(good({"endpoint", "hashkv"}), endpoint() + ", "));
  EXPECT_TRUE(has(good({"member", "list"}), "started, default"));
  EXPECT_TRUE(has(good({"defrag"}), "Finished defragmenting"));
  EXPECT_EQ(good({"alarm", "list"}), "");
  store_->set_settings({{kAlarmNoSpace, ""}}, [](Result<Revision>) {});
  EXPECT_TRUE(has(bad({"put", "a", "2"}), "etcdserver: mvcc: database space exceeded"));
  EXPECT_TRUE(has(good({"alarm", "list"}), "alarm:NOSPACE"));
  EXPECT_EQ(good({"del", "a"}), "1\n");
  EXPECT_TRUE(has(good({"alarm", "disarm"}), "alarm:NOSPACE"));
  good({"put", "a", "2"});
  EXPECT_TRUE(has(bad({"member", "add", "other", "--peer-urls=http://127.0.0.1:1"}), "one member"));
}

TEST_F(Etcdctl, SnapshotsCanBeRestoredByEtcdAndByUs) {
  for (int i = 0; i < 500; ++i) ASSERT_TRUE(await(store_->put({.key = "k" + std::to_string(i), .value = std::string(static_cast<std::size_t>(i) * 13, 'v')})));
  ASSERT_TRUE(await(store_->delete_range({.key = "k7"})));
  ASSERT_TRUE(await(store_->compact(100, true)));
  const auto file = dir_.path() + "/snapshot.db";
  good({"snapshot", "save", file});
  EXPECT_TRUE(has(good({"snapshot", "status", file}), ", 502, "));
  good({"snapshot", "restore", file, "--data-dir", dir_.path() + "/etcd"});
  EXPECT_TRUE(path_exists(dir_.path() + "/etcd/member/snap/db"));
  auto imported = import_snapshot(file, dir_.path() + "/again");
  ASSERT_TRUE(imported) << imported.error().message;
  auto again = Store::open(dir_.path() + "/again").value();
  EXPECT_EQ(again->revision(), store_->revision());
  EXPECT_EQ(again->compacted(), 100);
  const RangeRequest all{.key = std::string(1, '\0'), .range_end = std::string(1, '\0')};
  EXPECT_EQ(again->range_now(all)->kvs, store_->range_now(all)->kvs);
  EXPECT_EQ(hash_kv(*again, 0)->hash, hash_kv(*store_, 0)->hash);
  EXPECT_FALSE(import_snapshot(file, dir_.path() + "/again")) << "a store is not overwritten";
}

TEST_F(Etcdctl, MirrorsToAnotherStore) {
  TempDir other_dir;
  auto other = Store::open(other_dir.path()).value();
  auto target = Server::start(*other, {.listen = {"127.0.0.1:0"}}).value();
  for (int i = 0; i < 20; ++i) good({"put", "m" + std::to_string(i), "v"});
  std::thread mirror([&] {
    (void)run({"timeout", "-s", "INT", "8", "etcdctl", "--endpoints", endpoint(), "make-mirror", "127.0.0.1:" + std::to_string(target->port())});
  });
  for (int i = 0; i < 100 && store_->status().watchers == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  good({"put", "m-live", "later"});
  for (int i = 0; i < 100 && other->status().keys < 21; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(other->range_now({.key = "m", .range_end = "n", .count_only = true})->count, 21);
  mirror.join();
}

TEST_F(Etcdctl, UsersRolesAndAuthentication) {
  EXPECT_TRUE(has(bad({"auth", "enable"}), "root user does not exist"));
  good({"user", "add", "root:secret"});
  EXPECT_TRUE(has(bad({"user", "add", "root:again"}), "etcdserver: user name already exists"));
  good({"user", "grant-role", "root", "root"});
  good({"user", "add", "alice:pw"});
  good({"role", "add", "reader"});
  good({"role", "grant-permission", "reader", "read", "pub/", "--prefix=true"});
  good({"role", "grant-permission", "reader", "readwrite", "own"});
  EXPECT_TRUE(has(bad({"user", "grant-role", "alice", "nobody"}), "etcdserver: role name not found"));
  good({"user", "grant-role", "alice", "reader"});
  good({"put", "pub/x", "1"});
  good({"put", "private", "1"});
  good({"auth", "enable"});
  EXPECT_TRUE(has(bad({"get", "pub/x"}), "etcdserver: user name is empty"));
  EXPECT_TRUE(has(bad({"--user", "alice:wrong", "get", "pub/x"}), "authentication failed, invalid user ID or password"));
  EXPECT_EQ(good({"--user", "alice:pw", "get", "pub/x"}), "pub/x\n1\n");
  EXPECT_EQ(good({"--user", "alice:pw", "get", "pub/", "--prefix", "--keys-only"}), "pub/x\n\n");
  EXPECT_TRUE(has(bad({"--user", "alice:pw", "put", "pub/x", "2"}), "etcdserver: permission denied"));
  EXPECT_TRUE(has(bad({"--user", "alice:pw", "get", "private"}), "etcdserver: permission denied"));
  EXPECT_TRUE(has(bad({"--user", "alice:pw", "get", "p", "--prefix"}), "etcdserver: permission denied"));
  EXPECT_TRUE(has(bad({"--user", "alice:pw", "user", "list"}), "etcdserver: permission denied"));
  EXPECT_TRUE(has(bad({"--user", "alice:pw", "watch", "private"}), "permission denied"));
  good({"--user", "alice:pw", "put", "own", "2"});
  EXPECT_EQ(good({"--user", "root:secret", "user", "list"}), "alice\nroot\n");
  EXPECT_TRUE(has(good({"--user", "root:secret", "role", "get", "reader"}), "own"));
  EXPECT_TRUE(has(good({"--user", "alice:pw", "user", "get", "alice"}), "Roles: reader"));
  server_.reset();
  store_.reset();
  start();  // all of it is durable
  EXPECT_EQ(good({"--user", "alice:pw", "get", "own"}), "own\n2\n");
  EXPECT_TRUE(has(bad({"--user", "root:secret", "user", "delete", "root"}), "invalid auth management"));
  good({"--user", "root:secret", "auth", "disable"});
  EXPECT_EQ(good({"get", "private"}), "private\n1\n");
}

TEST_F(Etcdctl, UsersAndRolesCanBeChangedAndTakenAway) {
  good({"user", "add", "bob:old"});
  good({"role", "add", "writer"});
  EXPECT_EQ(good({"role", "list"}), "writer\n");
  good({"role", "grant-permission", "writer", "readwrite", "w/", "--prefix=true"});
  good({"user", "grant-role", "bob", "writer"});
  good({"user", "passwd", "bob", "--interactive=false"}, "new\n");
  good({"user", "add", "root:secret"});
  good({"user", "grant-role", "root", "root"});
  good({"auth", "enable"});
  EXPECT_TRUE(has(bad({"--user", "bob:old", "put", "w/1", "x"}), "authentication failed, invalid user ID or password"));
  good({"--user", "bob:new", "put", "w/1", "x"});
  good({"--user", "root:secret", "role", "revoke-permission", "writer", "w/", "--prefix=true"});
  EXPECT_TRUE(has(bad({"--user", "bob:new", "put", "w/1", "y"}), "etcdserver: permission denied"));
  good({"--user", "root:secret", "user", "revoke-role", "bob", "writer"});
  EXPECT_TRUE(has(bad({"--user", "root:secret", "user", "revoke-role", "bob", "writer"}), "etcdserver: role is not granted to the user"));
  good({"--user", "root:secret", "role", "delete", "writer"});
  EXPECT_TRUE(has(bad({"--user", "root:secret", "role", "get", "writer"}), "etcdserver: role name not found"));
  good({"--user", "root:secret", "user", "delete", "bob"});
  EXPECT_TRUE(has(bad({"--user", "root:secret", "user", "get", "bob"}), "etcdserver: user name not found"));
  EXPECT_TRUE(has(bad({"--user", "bob:new", "get", "w/1"}), "authentication failed, invalid user ID or password"));
}

// The smallest load that etcdctl knows, for a minute. It judges by the clock, and a busy machine is no fault of the store: what must
// hold is that it comes to a verdict, that every write was answered, and that it removed them. The benchmark asks for the verdict.
TEST_F(Etcdctl, ChecksItsPerformance) {
  const auto out = run({"etcdctl", "--endpoints", endpoint(), "check", "perf", "--load=s"}, {}, 120);
  EXPECT_TRUE(has(out.text, "Throughput")) << out.text << out.errors;
  EXPECT_TRUE(has(out.text, "Slowest request took")) << out.text;
  EXPECT_FALSE(has(out.text + out.errors, "too many errors")) << out.text << out.errors;
  EXPECT_GT(store_->revision(), 100);
  EXPECT_EQ(store_->status().keys, 0u);
}

TEST_F(Etcdctl, TlsWithClientCertificates) {
  const std::chrono::hours day(24);
  const auto ca = pki::make_ca("store-ca", day).value();
  const auto other_ca = pki::make_ca("stranger-ca", day).value();
  const auto server = pki::make_server(ca, {"store", {}}, {{"localhost"}, {IpAddress::parse("127.0.0.1").value()}}, day).value();
  const auto client = pki::make_client(ca, {"alice", {}}, day).value();
  const auto stranger = pki::make_client(other_ca, {"mallory", {}}, day).value();
  const auto write = [&](const std::string& name, const std::string& text) {
    EXPECT_TRUE(write_file_atomic(dir_.path() + "/" + name, text, 0600));
    return dir_.path() + "/" + name;
  };
  ServerOptions o;
  o.certificate_file = write("server.crt", server.certificate_pem);
  o.key_file = write("server.key", server.key_pem);
  o.trusted_ca_file = write("ca.crt", ca.certificate_pem);
  o.client_certificates = true;
  start(o);
  const auto with = [&](const pki::KeyPair& pair, std::vector<std::string> args) {
    args.insert(args.begin(), {"etcdctl", "--endpoints", "https://" + endpoint(), "--cacert", o.trusted_ca_file, "--cert",
                               write("client.crt", pair.certificate_pem), "--key", write("client.key", pair.key_pem), "--dial-timeout=1s", "--command-timeout=2s"});
    return run(std::move(args));
  };
  auto out = with(client, {"put", "a", "1"});
  EXPECT_TRUE(out.ok) << out.errors;
  EXPECT_FALSE(with(stranger, {"put", "a", "2"}).ok) << "a certificate of another CA";
  EXPECT_FALSE(run({"etcdctl", "--endpoints", "https://" + endpoint(), "--cacert", o.trusted_ca_file, "--dial-timeout=1s", "--command-timeout=2s", "put", "a", "3"}).ok) << "no certificate";
  EXPECT_FALSE(ctl({"--dial-timeout=1s", "--command-timeout=2s", "put", "a", "4"}).ok) << "no TLS at all";
  EXPECT_EQ(store_->range_now({.key = "a"})->kvs.at(0).value, "1");
  // The certificate's common name is the user.
  for (const auto& args : std::vector<std::vector<std::string>>{{"user", "add", "root", "--no-password"}, {"user", "grant-role", "root", "root"},
                                                               {"user", "add", "alice", "--no-password"}, {"role", "add", "r"},
                                                               {"role", "grant-permission", "r", "readwrite", "a"}, {"user", "grant-role", "alice", "r"}, {"auth", "enable"}}) {
    auto done = with(client, args);
    EXPECT_TRUE(done.ok) << args[0] << " " << args[1] << ": " << done.errors;
  }
  EXPECT_TRUE(with(client, {"put", "a", "5"}).ok);
  out = with(client, {"put", "b", "1"});
  EXPECT_FALSE(out.ok);
  EXPECT_TRUE(has(out.errors, "etcdserver: permission denied")) << out.errors;
  auto without_users = o;  // the CA alone makes a certificate necessary, as in etcd
  without_users.client_certificates = false;
  start(without_users);
  EXPECT_FALSE(run({"etcdctl", "--endpoints", "https://" + endpoint(), "--cacert", o.trusted_ca_file, "--dial-timeout=1s", "--command-timeout=2s", "get", "a"}).ok);
  EXPECT_TRUE(has(with(client, {"get", "a"}).errors, "etcdserver: user name is empty")) << "its name is nobody's";
  auto bad_files = o;
  bad_files.listen = {"https://127.0.0.1:0"};
  bad_files.certificate_file = dir_.path() + "/missing.crt";
  auto refused = Server::start(*store_, bad_files);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(has(refused.error().message, "--cert-file")) << refused.error().message;
}

}  // namespace
}  // namespace fairlead::etcd
