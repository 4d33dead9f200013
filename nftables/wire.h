// nf_tables over netlink: operations to bytes, and the kernel's messages back to values. Pure; the sockets are in
// kernel_netlink.cc. Decoding never trusts a length: malformed input is an error or is skipped, never read beyond.
// Source: linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "nftables/model.h"

namespace fairlead::nftables::wire {

// Builds netlink messages one after the other in one buffer.
class Writer {
 public:
  // Starts a message for nf_tables (type NFT_MSG_*), or of type `raw_type` as it is when raw is set.
  void begin(std::uint16_t type, std::uint16_t flags, std::uint32_t seq, std::uint8_t family, bool raw = false,
             std::uint16_t res_id = 0);
  void end();
  void put(std::uint16_t type, std::span<const std::uint8_t> data);
  void put_string(std::uint16_t type, std::string_view text);
  void put_be32(std::uint16_t type, std::uint32_t v);
  void put_be64(std::uint16_t type, std::uint64_t v);
  std::size_t nest(std::uint16_t type);  // returns what unnest() wants
  void unnest(std::size_t at);
  std::size_t message_size() const { return bytes_.size() - start_; }
  std::size_t size() const { return bytes_.size(); }
  std::vector<std::uint8_t>& bytes() { return bytes_; }
  // Sets flags of the message that was begun last.
  void add_flags(std::uint16_t flags);

 private:
  std::vector<std::uint8_t> bytes_;
  std::size_t start_ = 0;
};

// A whole transaction, from BATCH_BEGIN to BATCH_END. Each message has its own sequence number, so that an error can be
// traced to its operation; the last one asks for an acknowledgement.
struct EncodedBatch {
  std::vector<std::uint8_t> bytes;
  std::uint32_t first_seq = 0;  // of BATCH_BEGIN
  std::uint32_t ack_seq = 0;    // the message that will be acknowledged
  std::vector<std::size_t> op_of;  // message (seq - first_seq - 1) -> index in Batch::ops
};
EncodedBatch encode(const Batch& batch, std::uint32_t first_seq);

// The body of a request for one element of a set (NFT_MSG_GETSETELEM), by its key.
void put_element_query(Writer& w, std::string_view table, const Set& set, const Element& key);

// ---- messages from the kernel

struct TableMessage {
  std::string name;
  std::string comment;
};
struct ChainMessage {
  std::string table;
  Chain chain;
};
struct RuleMessage {
  std::string table, chain;
  Rule rule;
};
struct SetMessage {
  std::string table;
  Set set;
};
struct ElementCount {
  std::uint64_t packets = 0, bytes = 0;
};
struct ElementsMessage {
  std::string table, set;
  std::vector<Element> elements;
  std::vector<ElementCount> counts;  // beside elements
};
struct GenerationMessage {
  std::uint32_t id = 0;
};
using Message = std::variant<TableMessage, ChainMessage, RuleMessage, SetMessage, ElementsMessage, GenerationMessage>;

// One nf_tables message: `type` is NFT_MSG_*, `family` that of its table, `payload` what follows nfgenmsg.
Result<Message> decode(std::uint8_t type, Family family, std::span<const std::uint8_t> payload);
// The table that a notification is about; empty when it names none.
std::string table_of(std::uint8_t type, std::span<const std::uint8_t> payload);

// Walks the netlink messages in a received buffer.
struct Header {
  std::uint16_t type = 0, flags = 0;
  std::uint32_t seq = 0, port = 0;
};
struct Received {
  Header header;
  std::span<const std::uint8_t> payload;  // after nlmsghdr
};
// The next message, removed from the front of `buffer`; nothing at the end or when the rest makes no sense.
std::optional<Received> next_message(std::span<const std::uint8_t>& buffer);

}  // namespace fairlead::nftables::wire
