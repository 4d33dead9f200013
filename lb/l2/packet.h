// ARP and neighbour discovery on Ethernet, without I/O: reading the question "who has this address?" out of a frame, and
// writing the answers and announcements. parse_question() is total and strict: whatever is not a well-formed question that an
// address owner must answer is nullopt.
// Source: RFC 826, RFC 5227 (ARP announcements), RFC 4861 sections 4.3, 4.4, 7.1.1 (neighbour discovery).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ip.h"
#include "netlink/link.h"

namespace fairlead::lb::l2 {

using Frame = std::vector<std::uint8_t>;
using netlink::MacAddress;

struct Question {
  IpAddress target;      // whose hardware address is asked for
  IpAddress asker;       // unspecified: the asker wants to know whether it may use the address itself
  MacAddress asker_mac;  // where the answer goes
  bool operator==(const Question&) const = default;
};

std::optional<Question> parse_question(std::span<const std::uint8_t> frame);
Frame build_answer(const Question& question, const MacAddress& ours);
// "This address is here": for IPv4 an ARP request and an ARP reply (devices differ in which they believe), for IPv6 an
// unsolicited neighbour advertisement to all nodes.
std::vector<Frame> build_announcement(const IpAddress& ip, const MacAddress& ours);

IpAddress solicited_node_group(const IpAddress& ip);  // ff02::1:ffXX:XXXX. Requires: is_v6()

}  // namespace fairlead::lb::l2
