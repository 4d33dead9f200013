// HTTP messages as values, shared by the server, the client and every handler. Header names compare without regard to
// case; order and duplicates are kept. A target is path and query exactly as on the wire; Url splits and decodes it.
// Source: RFC 9110, RFC 9112.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace fairlead::http {

class Headers {
 public:
  void add(std::string name, std::string value) { items_.emplace_back(std::move(name), std::move(value)); }
  void set(std::string_view name, std::string value);  // replaces all of that name
  void erase(std::string_view name);
  std::optional<std::string_view> get(std::string_view name) const;  // the first one
  std::string_view value_or(std::string_view name, std::string_view fallback) const;
  bool has_token(std::string_view name, std::string_view token) const;  // in a comma-separated list: Connection: upgrade
  const std::vector<std::pair<std::string, std::string>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, std::string>> items_;
};

// Path and query of a request target, percent-decoded.
struct Target {
  std::string path;
  std::vector<std::pair<std::string, std::string>> query;
  std::optional<std::string_view> get(std::string_view key) const;  // the first value of key
  static Result<Target> parse(std::string_view text);
};
std::string percent_encode(std::string_view text);  // everything but unreserved characters

// Who is at the other end of a connection, as far as TLS and TCP tell.
struct Peer {
  SocketAddress address;
  bool tls = false;
  // From a client certificate that verified against the server's client CA; empty when there is none.
  std::string common_name;
  std::vector<std::string> organizations;
  // A certificate was offered but did not verify, and why. It grants nothing; an authenticator may answer 401.
  std::string certificate_error;
};

struct Request {
  Request() = default;  // not an aggregate: see base/asio.h on co_await
  std::string method = "GET";
  std::string target = "/";
  Headers headers;
  std::string body;
  Peer peer;  // filled by the server
};

std::string_view reason_phrase(unsigned status);

}  // namespace fairlead::http
