// nf_tables values in the language of nft, for people, golden files and error messages. Sorted, so that equal tables have
// equal text. Close to what "nft list" prints; for reading, not for "nft -f".
#pragma once

#include <string>

#include "nftables/model.h"

namespace fairlead::nftables {

std::string to_text(const Verdict& v);
std::string to_text(const Set& set, const Element& e);  // "10.96.0.1 . tcp . 80 : goto reject"
std::string to_text(const Rule& r, Family family);
std::string to_text(const Chain& c, Family family);
std::string to_text(const Table& t);
std::string to_text(const Batch& b);
std::string describe(const Batch& b, std::size_t op);  // one operation, short

}  // namespace fairlead::nftables
