#include <boost/json.hpp>

#include "lb/bgp/report.h"

namespace fairlead::lb::bgp {

namespace json = boost::json;

std::string speaker_lease_name(const std::string& node) { return "fairlead-lb-speaker-" + node; }

std::string write_reports(const std::vector<SessionReport>& sessions) {
  json::array out;
  for (const auto& s : sessions)
    out.push_back({{"peer", s.peer}, {"router", s.router}, {"state", s.state}, {"announced", s.announced}, {"since", s.since}, {"lastError", s.last_error}});
  return json::serialize(out);
}

std::vector<SessionReport> read_reports(const std::string& node, const std::string& text) {
  std::vector<SessionReport> out;
  boost::system::error_code ec;
  const auto value = json::parse(text, ec);
  if (ec || !value.is_array()) return out;
  for (const auto& v : value.get_array()) {
    const auto* o = v.if_object();
    if (!o) continue;
    const auto string = [&](const char* name) {
      const auto* m = o->if_contains(name);
      return m && m->is_string() ? std::string(m->get_string()) : std::string();
    };
    const auto number = [&](const char* name) -> std::int64_t {
      const auto* m = o->if_contains(name);
      return m && m->is_int64() && m->get_int64() >= 0 ? m->get_int64() : 0;
    };
    SessionReport s;
    s.node = node;
    s.peer = string("peer");
    s.router = string("router");
    s.state = string("state");
    s.last_error = string("lastError");
    s.announced = static_cast<std::size_t>(number("announced"));
    s.since = number("since");
    if (!s.peer.empty()) out.push_back(std::move(s));
  }
  return out;
}

}  // namespace fairlead::lb::bgp
