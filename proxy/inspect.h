// The commands that look: plan, verify, top, trace. Each returns a process's exit code.
#pragma once

#include <string>
#include <vector>

#include "proxy/config.h"
#include "proxy/dataplane.h"

namespace fairlead::proxy {

using OpenDataplane = Result<std::unique_ptr<Dataplane>> (*)(const Config&);

struct PlanOptions {
  std::vector<std::string> files;
  std::string node;
  bool plan = true, rules = true;
};
int show_plan(const PlanOptions& options, const Config& config, const Dataplane& dataplane);
// 0: the kernel is as it should be, 1: it is not, or that could not be found out.
int verify(const Config& config, Dataplane& dataplane);

struct TopOptions {
  std::string address = "127.0.0.1:10249";
  bool once = false;
  int lines = 30;
  int interval_seconds = 2;
};
int top(const TopOptions& options);

struct TraceOptions {
  std::string source;       // an address, or "host"
  std::string destination;  // "IP", "IP:PORT", "IP:PORT/PROTO"
  std::string interface;    // where the packet comes in; empty: where the route to the source leads
};
// Splits DST[:PORT][/PROTO]. Pure.
Result<Packet> parse_packet(const TraceOptions& options, const std::vector<IpAddress>& local_addresses);
int trace(const TraceOptions& options, Dataplane& dataplane);

}  // namespace fairlead::proxy
