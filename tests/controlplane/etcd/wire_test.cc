// What no proper client sends: malformed frames and messages, unknown methods, requests beyond every limit. Each is sent to our
// server and to a real etcd, and the answers must be the same, word by word where the words are etcd's; nothing is stored.
#include <gtest/gtest.h>

#include "controlplane/etcd/proto/rpc.pb.h"
#include "controlplane/etcd/server.h"
#include "tests/controlplane/etcd/light_client.h"
#include "tests/controlplane/etcd/real_etcd.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;

std::string raw(char flag, std::uint32_t length, const std::string& bytes) {
  std::string out(1, flag);
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(length >> shift));
  return out + bytes;
}

std::string put(const std::string& key, const std::string& value, std::int64_t lease = 0) {
  pb::PutRequest m;
  m.set_key(key);
  m.set_value(value);
  m.set_lease(lease);
  return framed(m);
}

std::string range(const std::string& key, std::int64_t revision) {
  pb::RangeRequest m;
  m.set_key(key);
  m.set_revision(revision);
  return framed(m);
}

pb::TxnRequest puts(int n, bool same_key) {
  pb::TxnRequest m;
  for (int i = 0; i < n; ++i) m.add_success()->mutable_request_put()->set_key("txn" + std::to_string(same_key ? 0 : i));
  return m;
}

std::string duplicate_in_nested() {
  auto m = puts(1, true);
  *m.add_success()->mutable_request_txn() = puts(1, true);
  return framed(m);
}

std::string compaction(std::int64_t revision) {
  pb::CompactionRequest m;
  m.set_revision(revision);
  return framed(m);
}

std::string grant(std::int64_t ttl, std::int64_t id) {
  pb::LeaseGrantRequest m;
  m.set_ttl(ttl);
  m.set_id(id);
  return framed(m);
}

std::string revoke(std::int64_t id) {
  pb::LeaseRevokeRequest m;
  m.set_id(id);
  return framed(m);
}

std::string put_flags(bool keep_value, bool keep_lease, const std::string& value) {
  pb::PutRequest m;
  m.set_key("flags");
  m.set_value(value);
  m.set_ignore_value(keep_value);
  m.set_ignore_lease(keep_lease);
  if (keep_lease) m.set_lease(7);
  return framed(m);
}

struct Case {
  const char* what;
  const char* method;
  std::string body;
  int code;
  const char* message;
  std::vector<std::pair<std::string, std::string>> headers = {};
};

const std::string kBig(1600 * 1024, 'v'), kTooBig(3 << 20, 'v');

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      // the transport
      {"unknown method", "/etcdserverpb.KV/Nothing", put("k", "v"), 12, "unknown method Nothing for service etcdserverpb.KV"},
      {"unknown service", "/nobody.Knows/It", put("k", "v"), 12, "unknown service nobody.Knows"},
      {"a message cut short", "/etcdserverpb.KV/Put", raw(0, 3, "\x0a\x05k"), 13, "grpc: error unmarshalling request: unexpected EOF"},
      {"larger than any request", "/etcdserverpb.KV/Put", put("k", kTooBig), 8, nullptr},
      {"compressed without a name", "/etcdserverpb.KV/Put", raw(1, 2, "xx"), 13, "grpc: compressed flag set with identity or empty encoding"},
      {"compressed in an unknown way", "/etcdserverpb.KV/Put", raw(1, 2, "xx"), 12, "grpc: Decompressor is not installed for grpc-encoding \"snail\"", {{"grpc-encoding", "snail"}}},
      // the request
      {"no key", "/etcdserverpb.KV/Put", put("", "v"), 3, "etcdserver: key is not provided"},
      {"no key to read", "/etcdserverpb.KV/Range", range("", 0), 3, "etcdserver: key is not provided"},
      {"oversized request", "/etcdserverpb.KV/Put", put("big", kBig), 3, "etcdserver: request is too large"},
      {"unknown lease", "/etcdserverpb.KV/Put", put("k", "v", 4711), 5, "etcdserver: requested lease not found"},
      {"future revision", "/etcdserverpb.KV/Range", range("k", 1'000'000), 11, "etcdserver: mvcc: required revision is a future revision"},
      {"compacted revision", "/etcdserverpb.KV/Range", range("there", 2), 11, "etcdserver: mvcc: required revision has been compacted"},
      {"compacted again", "/etcdserverpb.KV/Compact", compaction(3), 11, "etcdserver: mvcc: required revision has been compacted"},
      {"compaction of the future", "/etcdserverpb.KV/Compact", compaction(1'000'000), 11, "etcdserver: mvcc: required revision is a future revision"},
      {"duplicate keys", "/etcdserverpb.KV/Txn", framed(puts(2, true)), 3, "etcdserver: duplicate key given in txn request"},
      {"duplicate keys, one nested", "/etcdserverpb.KV/Txn", duplicate_in_nested(), 3, "etcdserver: duplicate key given in txn request"},
      {"too many operations", "/etcdserverpb.KV/Txn", framed(puts(129, false)), 3, "etcdserver: too many operations in txn request"},
      {"a value beside ignore_value", "/etcdserverpb.KV/Put", put_flags(true, false, "v"), 3, "etcdserver: value is provided"},
      {"a lease beside ignore_lease", "/etcdserverpb.KV/Put", put_flags(false, true, ""), 3, "etcdserver: lease is provided"},
      {"ignore_value without a value", "/etcdserverpb.KV/Put", put_flags(true, false, ""), 3, "etcdserver: key not found"},
      {"revoke an unknown lease", "/etcdserverpb.Lease/LeaseRevoke", revoke(4711), 5, "etcdserver: requested lease not found"},
      {"grant an id twice", "/etcdserverpb.Lease/LeaseGrant", grant(60, 99), 9, "etcdserver: lease already exists"},
      {"grant for too long", "/etcdserverpb.Lease/LeaseGrant", grant(10'000'000'000, 0), 11, "etcdserver: too large lease TTL"},
  };
  return all;
}

struct Answers {
  std::vector<LightClient::Reply> replies;
  std::int64_t revision_before = 0, revision_after = 0;
};

LightClient::Reply ask(LightClient& client, const LightClient::Request& request) {
  LightClient::Reply out;
  client.call(request, [&](const LightClient::Reply& r) { out = r; });
  EXPECT_TRUE(client.run(std::chrono::seconds(20))) << request.path << ": no answer";
  return out;
}

std::int64_t revision(LightClient& client) {
  const auto r = ask(client, {.path = "/etcdserverpb.KV/Range", .body = range("x", 0)});
  pb::RangeResponse m;
  EXPECT_TRUE(r.grpc == 0 && r.body.size() > 5 && m.ParseFromString(r.body.substr(5)));
  return m.header().revision();
}

Answers drive(const std::string& url) {
  const int port = std::atoi(url.substr(url.rfind(':') + 1).c_str());
  LightClient client("127.0.0.1", port, 1);
  for (const char* v : {"1", "2", "3"}) EXPECT_EQ(ask(client, {.path = "/etcdserverpb.KV/Put", .body = put("there", v)}).grpc, 0);
  EXPECT_EQ(ask(client, {.path = "/etcdserverpb.KV/Compact", .body = compaction(3)}).grpc, 0);
  EXPECT_EQ(ask(client, {.path = "/etcdserverpb.Lease/LeaseGrant", .body = grant(60, 99)}).grpc, 0);
  Answers out;
  out.revision_before = revision(client);
  for (const auto& c : cases()) out.replies.push_back(ask(client, {.path = c.method, .body = c.body, .headers = c.headers}));
  out.revision_after = revision(client);
  return out;
}

struct Ours {
  TempDir dir;
  std::unique_ptr<Store> store = Store::open(dir.path()).value();
  std::unique_ptr<Server> server = Server::start(*store, {.listen = {"127.0.0.1:0"}}).value();
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server->port()); }
};

void expect_answers(const Answers& a) {
  for (std::size_t i = 0; i < cases().size(); ++i) {
    const auto& c = cases()[i];
    EXPECT_EQ(a.replies[i].grpc, c.code) << c.what << ": " << a.replies[i].message;
    if (c.message) {
      EXPECT_EQ(a.replies[i].message, c.message) << c.what;
    }
  }
  EXPECT_EQ(a.revision_before, a.revision_after) << "nothing was stored";
}

TEST(Wire, BadRequestsGetEtcdsTexts) {
  Ours ours;
  const auto mine = drive(ours.url());
  expect_answers(mine);
}

TEST(Wire, EtcdAnswersTheSame) {
  if (!RealEtcd::available()) GTEST_SKIP() << "etcd-server is not installed";
  RealEtcd etcd;
  ASSERT_TRUE(etcd.connect());
  const auto theirs = drive(etcd.url(0));
  expect_answers(theirs);
  Ours ours;
  const auto mine = drive(ours.url());
  for (std::size_t i = 0; i < cases().size(); ++i) {
    EXPECT_EQ(mine.replies[i].message, theirs.replies[i].message) << cases()[i].what;
    EXPECT_EQ(mine.replies[i].http, theirs.replies[i].http) << cases()[i].what;
  }
}

// Three values and the three before them are more than one message may hold: a client that allows it gets one revision in pieces.
struct Pieces {
  int messages = 0, events = 0, marked = 0;
  std::size_t largest = 0;
};
Pieces watch_large_revision(const std::string& url, bool fragment) {
  LightClient client("127.0.0.1", std::atoi(url.substr(url.rfind(':') + 1).c_str()), 1);
  pb::WatchRequest watch;
  auto& create = *watch.mutable_create_request();
  create.set_key("large/");
  create.set_range_end("large0");
  create.set_prev_kv(true);
  create.set_fragment(fragment);
  const auto write = [](char c) {
    pb::TxnRequest m;
    for (int i = 0; i < 3; ++i) {
      auto& p = *m.add_success()->mutable_request_put();
      p.set_key("large/" + std::to_string(i));
      p.set_value(std::string(400 * 1024, c));
    }
    return framed(m);
  };
  EXPECT_EQ(ask(client, {.path = "/etcdserverpb.KV/Txn", .body = write('a')}).grpc, 0);
  Pieces out;
  client.call({.path = "/etcdserverpb.Watch/Watch", .body = framed(watch), .stays_open = true}, {}, [&](std::string_view bytes) {
    pb::WatchResponse m;
    ASSERT_TRUE(m.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
    if (m.created()) return client.call({.path = "/etcdserverpb.KV/Txn", .body = write('b')}, {});
    ++out.messages;
    out.marked += m.fragment();
    out.largest = std::max(out.largest, bytes.size());
    for (const auto& e : m.events()) EXPECT_EQ(e.prev_kv().value().size(), 400u * 1024);
    out.events += m.events_size();
    if (!m.fragment()) client.stop();
  });
  client.run(std::chrono::seconds(30));
  return out;
}

TEST(Wire, ALargeRevisionComesInPiecesWhereTheClientAllowsIt) {
  const auto expect = [](const std::string& url) {
    const auto whole = watch_large_revision(url, false), pieces = watch_large_revision(url, true);
    EXPECT_EQ(whole.messages, 1);
    EXPECT_EQ(whole.events, 3);
    EXPECT_GT(pieces.messages, 1);
    EXPECT_EQ(pieces.events, 3);
    EXPECT_EQ(pieces.marked, pieces.messages - 1) << "all but the last";
    EXPECT_LT(pieces.largest, 1700u * 1024);
  };
  Ours ours;
  expect(ours.url());
  if (!RealEtcd::available()) GTEST_SKIP() << "etcd-server is not installed";
  RealEtcd etcd;
  ASSERT_TRUE(etcd.connect());
  expect(etcd.url(0));
}

TEST(Wire, WhatIsNotGrpcIsRefused) {
  Ours ours;
  LightClient client("127.0.0.1", ours.server->port(), 1);
  EXPECT_EQ(ask(client, {.path = "/etcdserverpb.KV/Put", .body = put("k", "v"), .content_type = "application/json"}).http, 415);
  EXPECT_EQ(ours.store->revision(), 1);
}

TEST(Wire, ManyCallsAtOnceAreAllAnswered) {
  Ours ours;
  LightClient client("127.0.0.1", ours.server->port(), 8);
  int good = 0;
  for (int i = 0; i < 5000; ++i)
    client.call({.path = "/etcdserverpb.KV/Put", .body = put("k" + std::to_string(i), "v"), .connection = i}, [&](const LightClient::Reply& r) { good += r.grpc == 0; });
  ASSERT_TRUE(client.run(std::chrono::seconds(60)));
  EXPECT_EQ(good, 5000);
  EXPECT_EQ(ours.store->revision(), 5001);
}

TEST(Wire, AStoppedServerLeavesNoCallBehind) {
  for (int round = 0; round < 20; ++round) {
    Ours ours;
    LightClient client("127.0.0.1", ours.server->port(), 4);
    int ended = 0;
    for (int i = 0; i < 200; ++i)
      client.call({.path = "/etcdserverpb.KV/Put", .body = put("k" + std::to_string(i), "v"), .connection = i}, [&](const LightClient::Reply&) { ++ended; });
    pb::WatchRequest watch;
    watch.mutable_create_request()->set_key("k");
    client.call({.path = "/etcdserverpb.Watch/Watch", .body = framed(watch), .stays_open = true}, [&](const LightClient::Reply&) { ++ended; }, [](std::string_view) {});
    std::thread stop([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(round));
      ours.server->stop();
    });
    EXPECT_TRUE(client.run(std::chrono::seconds(30)));
    stop.join();
    EXPECT_EQ(ended, 201);
  }
}

}  // namespace
}  // namespace fairlead::etcd
