#include "nftables/model.h"

namespace fairlead::nftables {

unsigned length_of(Type t) {
  switch (t) {
    case Type::ipv4_addr: return 4;
    case Type::ipv6_addr: return 16;
    case Type::inet_proto: return 1;
    case Type::inet_service: return 2;
    case Type::mark:
    case Type::classid: return 4;
  }
  return 4;
}

static unsigned padded_length(const std::vector<Type>& types) {
  unsigned n = 0;
  for (const Type t : types) n += (length_of(t) + 3) & ~3u;
  return n;
}

unsigned Set::key_length() const { return key.size() == 1 ? length_of(key[0]) : padded_length(key); }
unsigned Set::data_length() const { return data.size() == 1 ? length_of(data[0]) : padded_length(data); }

std::size_t Batch::objects() const {
  std::size_t n = 0;
  for (const auto& o : ops) {
    if (const auto* a = std::get_if<op::AddElements>(&o)) n += a->elements.size();
    else if (const auto* d = std::get_if<op::DeleteElements>(&o)) n += d->elements.size();
    else ++n;
  }
  return n;
}

}  // namespace fairlead::nftables
