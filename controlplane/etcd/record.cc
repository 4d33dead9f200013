#include "controlplane/etcd/record.h"

#include <cstring>

#include "controlplane/etcd/crc32c.h"

namespace fairlead::etcd {
namespace {

enum Tag : std::uint8_t { kTxn = 1, kLeaseGrant = 2, kLeaseRevoke = 3, kCompact = 4, kSetting = 5 };
enum Flag : std::uint8_t { kTombstone = 1, kHasPrev = 2, kHasLease = 4 };

void put_bytes(std::string& out, std::string_view b) {
  put_varint(out, b.size());
  out.append(b);
}
bool get_bytes(std::string_view& in, std::string_view& b) {
  std::uint64_t n;
  if (!get_varint(in, n) || n > in.size()) return false;
  b = in.substr(0, n);
  in.remove_prefix(n);
  return true;
}
bool get_signed(std::string_view& in, std::int64_t& v) {
  std::uint64_t u;
  if (!get_varint(in, u)) return false;
  v = static_cast<std::int64_t>(u);
  return true;
}
bool get_byte(std::string_view& in, std::uint8_t& b) {
  if (in.empty()) return false;
  b = static_cast<std::uint8_t>(in.front());
  in.remove_prefix(1);
  return true;
}

void put_mutation(std::string& out, const Mutation& m) {
  std::uint8_t flags = m.tombstone ? kTombstone : 0;
  if (m.prev.main != 0) flags |= kHasPrev;
  if (m.lease != 0) flags |= kHasLease;
  out.push_back(static_cast<char>(flags));
  put_bytes(out, m.key);
  if (flags & kHasPrev) {
    put_varint(out, static_cast<std::uint64_t>(m.prev.main));
    put_varint(out, m.prev.sub);
  }
  if (m.tombstone) return;
  put_varint(out, static_cast<std::uint64_t>(m.create));
  put_varint(out, static_cast<std::uint64_t>(m.version));
  if (flags & kHasLease) put_varint(out, static_cast<std::uint64_t>(m.lease));
  put_bytes(out, m.value);
}

bool get_mutation(std::string_view& in, RowView& m) {
  std::uint8_t flags;
  if (!get_byte(in, flags) || flags > 7) return false;
  m.tombstone = (flags & kTombstone) != 0;
  if (!get_bytes(in, m.key)) return false;
  if (flags & kHasPrev) {
    std::uint64_t sub;
    if (!get_signed(in, m.prev.main) || !get_varint(in, sub) || sub > 0xffffffffu) return false;
    m.prev.sub = static_cast<std::uint32_t>(sub);
  }
  if (m.tombstone) return true;
  if (!get_signed(in, m.create) || !get_signed(in, m.version)) return false;
  if ((flags & kHasLease) && !get_signed(in, m.lease)) return false;
  return get_bytes(in, m.value);
}

Mutation to_mutation(const RowView& v) {
  return Mutation{v.tombstone, std::string(v.key), std::string(v.value), v.create, v.version, v.lease, v.prev, nullptr};
}

bool get_entry(std::string_view& in, Record& r) {
  std::uint8_t tag;
  if (!get_byte(in, tag)) return false;
  switch (tag) {
    case kTxn: {
      auto txn = std::make_shared<Txn>();
      std::uint64_t count;
      if (!get_signed(in, txn->main) || !get_varint(in, count) || count > in.size()) return false;
      txn->mutations.reserve(count);
      for (std::uint64_t i = 0; i < count; ++i) {
        RowView m;
        if (!get_mutation(in, m)) return false;
        txn->mutations.push_back(to_mutation(m));
      }
      r.txn = std::move(txn);
      return true;
    }
    case kLeaseGrant: {
      LeaseGrantEntry g;
      if (!get_signed(in, g.id) || !get_signed(in, g.ttl_seconds)) return false;
      r.lease_grant = g;
      return true;
    }
    case kLeaseRevoke: return get_signed(in, r.lease_revoke);
    case kCompact: return get_signed(in, r.compact);
    case kSetting: {
      std::string_view name, value;
      std::uint8_t present;
      if (!get_bytes(in, name) || !get_byte(in, present)) return false;
      SettingEntry s{std::string(name), std::nullopt};
      if (present) {
        if (!get_bytes(in, value)) return false;
        s.value = std::string(value);
      }
      r.settings.push_back(std::move(s));
      return true;
    }
    default: return false;
  }
}

}  // namespace

void put_varint(std::string& out, std::uint64_t v) {
  while (v >= 0x80) {
    out.push_back(static_cast<char>(v | 0x80));
    v >>= 7;
  }
  out.push_back(static_cast<char>(v));
}

bool get_varint(std::string_view& in, std::uint64_t& v) {
  v = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (in.empty()) return false;
    const auto b = static_cast<std::uint8_t>(in.front());
    in.remove_prefix(1);
    v |= static_cast<std::uint64_t>(b & 0x7f) << shift;
    if (!(b & 0x80)) return true;
  }
  return false;
}

std::size_t Txn::bytes() const {
  std::size_t n = sizeof(Txn);
  for (const auto& m : mutations) n += sizeof(Mutation) + m.key.size() + m.value.size();
  return n;
}

KeyValue to_key_value(const Mutation& m, Revision main) {
  if (m.tombstone) return KeyValue{.key = m.key, .mod_revision = main};
  return KeyValue{m.key, m.create, main, m.version, m.value, m.lease};
}

void encode_record(const Record& r, std::string& out) {
  if (r.txn) {
    out.push_back(kTxn);
    put_varint(out, static_cast<std::uint64_t>(r.txn->main));
    put_varint(out, r.txn->mutations.size());
    for (const auto& m : r.txn->mutations) put_mutation(out, m);
  }
  if (r.lease_grant) {
    out.push_back(kLeaseGrant);
    put_varint(out, static_cast<std::uint64_t>(r.lease_grant->id));
    put_varint(out, static_cast<std::uint64_t>(r.lease_grant->ttl_seconds));
  }
  if (r.lease_revoke != 0) {
    out.push_back(kLeaseRevoke);
    put_varint(out, static_cast<std::uint64_t>(r.lease_revoke));
  }
  if (r.compact != 0) {
    out.push_back(kCompact);
    put_varint(out, static_cast<std::uint64_t>(r.compact));
  }
  for (const auto& s : r.settings) {
    out.push_back(kSetting);
    put_bytes(out, s.name);
    out.push_back(s.value ? 1 : 0);
    if (s.value) put_bytes(out, *s.value);
  }
}

Result<Record> decode_record(std::string_view bytes) {
  Record r;
  while (!bytes.empty())
    if (!get_entry(bytes, r)) return fail(ErrorCode::data_loss, "malformed record in the write-ahead log");
  return r;
}

void encode_row(RevKey at, const Mutation& m, std::string& out) {
  out.assign(4, '\0');
  put_mutation(out, m);
  const auto crc = crc32c(crc32c(0, encode_rev_key(at)), std::string_view(out).substr(4));
  std::memcpy(out.data(), &crc, 4);
}

Result<RowView> decode_row(RevKey at, std::string_view bytes) {
  RowView row;
  std::uint32_t crc = 0;
  if (bytes.size() >= 4) std::memcpy(&crc, bytes.data(), 4);
  if (bytes.size() < 4 || crc != crc32c(crc32c(0, encode_rev_key(at)), bytes.substr(4)))
    return fail(ErrorCode::data_loss, "the stored row of revision {}.{} fails its checksum", at.main, at.sub);
  bytes.remove_prefix(4);
  if (!get_mutation(bytes, row) || !bytes.empty())
    return fail(ErrorCode::data_loss, "the stored row of revision {}.{} is malformed", at.main, at.sub);
  return row;
}

std::string encode_rev_key(RevKey k) {
  std::string s(12, '\0');
  for (int i = 0; i < 8; ++i) s[i] = static_cast<char>(static_cast<std::uint64_t>(k.main) >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i) s[8 + i] = static_cast<char>(k.sub >> (24 - 8 * i));
  return s;
}

RevKey decode_rev_key(std::string_view b) {
  RevKey k;
  if (b.size() != 12) return k;
  std::uint64_t main = 0;
  for (int i = 0; i < 8; ++i) main = main << 8 | static_cast<std::uint8_t>(b[i]);
  for (int i = 8; i < 12; ++i) k.sub = k.sub << 8 | static_cast<std::uint8_t>(b[i]);
  k.main = static_cast<Revision>(main);
  return k;
}

}  // namespace fairlead::etcd
