#include "cni/ipam/resolv_conf.h"

namespace fairlead::cni {
namespace {

std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> out;
  std::string word;
  for (const char c : line) {
    if (c == ' ' || c == '\t' || c == '\r') {
      if (!word.empty()) out.push_back(std::move(word));
      word.clear();
    } else {
      word += c;
    }
  }
  if (!word.empty()) out.push_back(std::move(word));
  return out;
}

}  // namespace

Dns parse_resolv_conf(std::string_view text) {
  Dns dns;
  while (!text.empty()) {
    const auto end = text.find('\n');
    auto words = words_of(text.substr(0, end));
    text = end == std::string_view::npos ? "" : text.substr(end + 1);
    if (words.size() < 2 || words[0][0] == '#' || words[0][0] == ';') continue;
    const std::string key = words[0];
    words.erase(words.begin());
    if (key == "nameserver") dns.nameservers.push_back(words[0]);
    if (key == "domain") dns.domain = words[0];
    if (key == "search") dns.search = words;
    if (key == "options") dns.options.insert(dns.options.end(), words.begin(), words.end());
  }
  return dns;
}

}  // namespace fairlead::cni
