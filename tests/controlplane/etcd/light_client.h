// A gRPC client on libnghttp2 that costs next to nothing, for load, and that can send what a proper client never would, for
// tests. One thread; everything happens within run().
//
//   LightClient client("127.0.0.1", port, 20);                  // connections
//   client.call({.path = "/etcdserverpb.KV/Put", .body = framed(m)}, [](const LightClient::Reply& r) { ... });
//   client.run();                                              // until every call has ended
#pragma once

#include <google/protobuf/message_lite.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace fairlead::etcd {

// A message as it stands in a gRPC body.
std::string framed(const google::protobuf::MessageLite& message);

class LightClient {
 public:
  struct Request {
    std::string path, body;
    std::vector<std::pair<std::string, std::string>> headers{};
    std::string content_type = "application/grpc";
    bool stays_open = false;  // the client does not end its side
    int connection = 0;       // modulo their number
  };
  struct Reply {
    int http = 0, grpc = -1;  // -1: the stream ended without a status
    std::string message;      // of the status
    std::string body;         // of calls that do not stay open
  };
  using Done = std::function<void(const Reply&)>;
  using Message = std::function<void(std::string_view bytes)>;  // each one that comes on a call that stays open

  LightClient(const std::string& host, int port, int connections);
  ~LightClient();
  bool connected() const;
  void call(const Request& request, Done done, Message message = {});
  // Returns when no call is under way, at the limit (false), or after stop().
  bool run(std::chrono::milliseconds limit = std::chrono::minutes(10));
  void stop();

 private:
  struct Connection;
  std::vector<std::unique_ptr<Connection>> connections_;
  int running_ = 0;
  bool stopped_ = false;
};

}  // namespace fairlead::etcd
