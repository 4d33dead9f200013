#include <algorithm>
#include <array>

#include "lb/bgp/message.h"

namespace fairlead::lb::bgp {
namespace {

using Names = std::span<const std::string_view>;

constexpr std::array<std::string_view, 4> kHeaderErrors{"", "connection not synchronized", "bad message length", "bad message type"};
constexpr std::array<std::string_view, 12> kOpenErrors{"malformed",  "unsupported version number", "bad peer AS", "bad BGP identifier", "unsupported optional parameter", "",
                                                       "unacceptable hold time", "unsupported capability", "", "", "", "role mismatch"};
constexpr std::array<std::string_view, 12> kUpdateErrors{"", "malformed attribute list", "unrecognized well-known attribute", "missing well-known attribute", "attribute flags error",
                                                         "attribute length error", "invalid ORIGIN", "", "invalid NEXT_HOP", "optional attribute error", "invalid network field", "malformed AS_PATH"};
constexpr std::array<std::string_view, 4> kStateErrors{"unspecified", "unexpected message in OpenSent", "unexpected message in OpenConfirm", "unexpected message in Established"};
constexpr std::array<std::string_view, 11> kCeases{"", "maximum number of prefixes reached", "administrative shutdown", "peer de-configured", "administrative reset", "connection rejected",
                                                   "other configuration change", "connection collision resolution", "out of resources", "hard reset", "BFD down"};

std::pair<std::string_view, Names> names(ErrorClass c) {
  switch (c) {
    case ErrorClass::header: return {"message header error", kHeaderErrors};
    case ErrorClass::open: return {"OPEN message error", kOpenErrors};
    case ErrorClass::update: return {"UPDATE message error", kUpdateErrors};
    case ErrorClass::hold_timer: return {"hold timer expired", {}};
    case ErrorClass::state_machine: return {"state machine error", kStateErrors};
    case ErrorClass::cease: return {"cease", kCeases};
  }
  return {"", {}};
}

// RFC 9003: a length and UTF-8 text from the other side's operator. What is not printable ASCII becomes '?'.
std::string operators_words(const Notification& n) {
  const bool carries = n.code == ErrorClass::cease && (n.subcode == cease::kShutdown || n.subcode == cease::kReset);
  if (!carries || n.data.empty() || n.data[0] == 0 || n.data[0] > n.data.size() - 1) return {};
  std::string text(n.data.begin() + 1, n.data.begin() + 1 + n.data[0]);
  std::replace_if(text.begin(), text.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return fmt::format(" (\"{}\")", text);
}

}  // namespace

std::string Notification::to_string() const {
  const auto [head, subs] = names(code);
  if (head.empty()) return fmt::format("error {}, {}", static_cast<unsigned>(code), static_cast<unsigned>(subcode));
  if (subcode < subs.size() && !subs[subcode].empty()) return fmt::format("{}: {}{}", head, subs[subcode], operators_words(*this));
  return subcode == 0 ? std::string(head) : fmt::format("{}: subcode {}", head, static_cast<unsigned>(subcode));
}

}  // namespace fairlead::lb::bgp
