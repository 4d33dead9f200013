#include "demo/identity.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace fairlead::demo {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\u%04x", static_cast<unsigned char>(c));
      out += buffer;
    } else {
      out += c;
    }
  }
  out += '"';
}

void append_member(std::string& out, std::string_view name, std::string_view value) {
  out += out.size() > 1 ? ", " : "";
  append_json_string(out, name);
  out += ": ";
  append_json_string(out, value);
}

// An address without its port: "10.0.0.1:80" -> "10.0.0.1", "[fd00::1]:80" -> "fd00::1".
std::string_view address_of(std::string_view endpoint) {
  const auto colon = endpoint.rfind(':');
  if (colon == std::string_view::npos) return endpoint;
  endpoint = endpoint.substr(0, colon);
  if (endpoint.size() >= 2 && endpoint.front() == '[') endpoint = endpoint.substr(1, endpoint.size() - 2);
  return endpoint;
}

}  // namespace

Identity Identity::from_environment() {
  Identity me{environment("POD_NAME"), environment("NODE_NAME"), environment("POD_IP"), environment("VERSION")};
  if (me.pod.empty()) {
    char name[256] = {};
    if (::gethostname(name, sizeof name - 1) == 0) me.pod = name;
  }
  return me;
}

std::string json_reply(const Identity& me, const Exchange& x) {
  std::string out = "{";
  append_member(out, "pod", me.pod);
  append_member(out, "node", me.node);
  append_member(out, "podIP", me.pod_ip.empty() ? address_of(x.server) : me.pod_ip);
  append_member(out, "version", me.version);
  append_member(out, "client", x.client);
  append_member(out, "server", x.server);
  append_member(out, "path", x.path);
  return out + "}\n";
}

std::string text_reply(const Identity& me, const Exchange& x) {
  std::string out = "pod=" + me.pod + " node=" + me.node + " podIP=";
  out += me.pod_ip.empty() ? address_of(x.server) : me.pod_ip;
  return out + " version=" + me.version + " client=" + x.client + " server=" + x.server + " path=" + x.path + "\n";
}

std::string json_member(std::string_view json, std::string_view name) {
  const std::string key = "\"" + std::string(name) + "\": \"";
  const auto at = json.find(key);
  if (at == std::string_view::npos) return {};
  const auto begin = at + key.size();
  const auto end = json.find('"', begin);
  return end == std::string_view::npos ? std::string() : std::string(json.substr(begin, end - begin));
}

}  // namespace fairlead::demo
