// How a speaker tells people of its BGP sessions: as text in an annotation of its Lease, which `fairlead lb status` reads.
// A Lease that was not renewed for kReportStale belongs to a speaker that is gone. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace fairlead::lb::bgp {

inline constexpr const char* kSessionsAnnotation = "lb.fairlead.io/bgp-sessions";
inline constexpr std::chrono::seconds kReportStale{40};
std::string speaker_lease_name(const std::string& node);
struct SessionReport {
  std::string node, peer, router, state, last_error;
  std::size_t announced = 0;
  std::int64_t since = 0;  // seconds since 1970
  bool operator==(const SessionReport&) const = default;
};
std::string write_reports(const std::vector<SessionReport>& sessions);
// What is malformed is left out.
std::vector<SessionReport> read_reports(const std::string& node, const std::string& text);

}  // namespace fairlead::lb::bgp
