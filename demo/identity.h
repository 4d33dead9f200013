// Who is answering: the facts about this pod that every reply carries, read once from the environment.
//   POD_NAME (else the host name), NODE_NAME, POD_IP (else the address that was reached), VERSION
#pragma once

#include <string>
#include <string_view>

namespace fairlead::demo {

struct Identity {
  std::string pod;
  std::string node;
  std::string pod_ip;
  std::string version;
  static Identity from_environment();
};

// One reply's variable part.
struct Exchange {
  std::string client;  // "10.0.0.1:4711", "[fd00::1]:4711"
  std::string server;  // the address and port that was reached
  std::string path;    // HTTP: the request path; UDP: the payload
};

std::string json_reply(const Identity& me, const Exchange& x);  // one line, ends with a newline
std::string text_reply(const Identity& me, const Exchange& x);  // "pod=web-0 node=n1 ...", ends with a newline

// The value of a string member of a flat JSON object as written by json_reply; empty when it is not there.
std::string json_member(std::string_view json, std::string_view name);

}  // namespace fairlead::demo
