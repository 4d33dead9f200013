// gRPC calls as a service sees them, apart from connections and HTTP/2 (session.h) and from sockets (server.h).
//
//   methods.add("/etcdserverpb.KV/Put", rpc::unary<pb::PutRequest>([&](const rpc::CallPtr& call, pb::PutRequest m) {
//     store.put(..., [call](Result<PutResponse> r) { ...; call->reply(message); });
//   }));
//
// Threads: a call may be answered from any thread. Requests come on the server's threads, those of one stream in order; they must
// not block there. Owner: whoever holds the CallPtr; the connection lets go of it when the call is over.
// Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md); texts of refused requests are those of grpc-go, which etcd uses.
#pragma once

#include <google/protobuf/message_lite.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace fairlead::etcd::rpc {

// Numbers of the gRPC protocol.
enum class Code {
  ok = 0, cancelled = 1, unknown = 2, invalid_argument = 3, deadline_exceeded = 4, not_found = 5, permission_denied = 7,
  resource_exhausted = 8, failed_precondition = 9, out_of_range = 11, unimplemented = 12, internal = 13, unavailable = 14,
  data_loss = 15, unauthenticated = 16
};
struct Status {
  Code code = Code::ok;
  std::string message;
};

class Call {
 public:
  virtual ~Call() = default;
  // After finish(), and once the client has gone, these do nothing.
  virtual void send(const google::protobuf::MessageLite& message) = 0;
  virtual void finish(const Status& status) = 0;
  virtual void reply(const google::protobuf::MessageLite& message) = 0;  // send and finish
  // Who calls, as far as the connection tells. Constant once the call was handed out.
  const std::string& token() const { return token_; }              // metadata "token" or "authorization"
  const std::string& common_name() const { return common_name_; }  // of the verified client certificate

 protected:
  std::string token_, common_name_;
};
using CallPtr = std::shared_ptr<Call>;

// The requests of a call that has a stream of them, or answers with a stream.
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  virtual void on_message(std::string_view bytes) = 0;
  virtual void on_end() {}  // the client sends no more
  // The following may come on another thread at the same time.
  virtual void on_drained() {}  // what was sent has left for the connection: time for the next
  virtual void on_gone() {}     // over: finished, or the client went away. The last call.
};

struct Method {
  std::function<void(const CallPtr&, std::string_view message)> unary;                     // one of the two
  std::function<std::shared_ptr<StreamHandler>(const CallPtr&)> stream;
};

class Methods {
 public:
  void add(std::string path, Method m) { methods_.emplace(std::move(path), std::move(m)); }
  const Method* find(std::string_view path) const {
    const auto it = methods_.find(path);
    return it == methods_.end() ? nullptr : &it->second;
  }
  bool has_service(std::string_view name) const;  // "etcdserverpb.KV"

 private:
  std::map<std::string, Method, std::less<>> methods_;
};

// Why bytes are not a message, in grpc-go's words.
inline Status malformed() { return {Code::internal, "grpc: error unmarshalling request: unexpected EOF"}; }

template <typename Request, typename Serve>
Method unary(Serve serve) {
  Method m;
  m.unary = [serve = std::move(serve)](const CallPtr& call, std::string_view bytes) {
    Request request;
    if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return call->finish(malformed());
    serve(call, std::move(request));
  };
  return m;
}

}  // namespace fairlead::etcd::rpc
