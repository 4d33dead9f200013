#include "ingress/core/route_table.h"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>

#include "base/text.h"

namespace fairlead::ingress {
namespace {

// "/foo/" and "/foo" are one prefix.
std::string_view prefix_key(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return path;
}

bool covers_elements(std::string_view prefix, std::string_view path) {
  return prefix == "/" || path.size() == prefix.size() || path[prefix.size()] == '/';
}

}  // namespace

std::string_view to_string(PathType t) {
  static constexpr std::string_view names[] = {"Exact", "Prefix", "ImplementationSpecific"};
  return names[static_cast<std::size_t>(t)];
}

std::string Route::name() const {
  return fmt::format("{} {}{}", ingress.empty() ? "-" : ingress, host.empty() ? "*" : host, path);
}

std::uint64_t endpoint_hash(const SocketAddress& address) {
  std::uint64_t h = 1469598103934665603ull;  // FNV-1a, then mixed
  const auto eat = [&](std::uint8_t b) { h = (h ^ b) * 1099511628211ull; };
  for (const auto b : address.ip.bytes()) eat(b);
  eat(static_cast<std::uint8_t>(address.port >> 8));
  eat(static_cast<std::uint8_t>(address.port));
  h ^= h >> 31;
  h *= 0x9E3779B97F4A7C15ull;
  return h ^ (h >> 29);
}

bool HostRoutes::add(std::shared_ptr<const Route> route) {
  const auto same = [&](const std::shared_ptr<const Route>& r) {
    if (regex_) return r->path == route->path;
    if ((r->type == PathType::prefix) != (route->type == PathType::prefix)) return false;
    if (r->type == PathType::prefix) return prefix_key(r->path) == prefix_key(route->path);
    return r->type == route->type && r->path == route->path;
  };
  // Hosts with very many paths are checked by finish(), which sorts.
  if (routes_.size() < 64 && std::any_of(routes_.begin(), routes_.end(), same)) return false;
  routes_.push_back(std::move(route));
  return true;
}

void HostRoutes::finish() {
  nodes_.clear();
  patterns_.clear();
  if (regex_) {
    for (const auto& r : routes_) patterns_.push_back(r.get());
    std::stable_sort(patterns_.begin(), patterns_.end(), [](const Route* a, const Route* b) { return a->path.size() > b->path.size(); });
    return;
  }
  const auto key_of = [](const Route& r) { return r.type == PathType::prefix ? prefix_key(r.path) : std::string_view(r.path); };
  nodes_.reserve(routes_.size());
  for (const auto& r : routes_) nodes_.push_back({key_of(*r)});
  std::sort(nodes_.begin(), nodes_.end(), [](const Node& a, const Node& b) { return a.key < b.key; });
  nodes_.erase(std::unique(nodes_.begin(), nodes_.end(), [](const Node& a, const Node& b) { return a.key == b.key; }), nodes_.end());
  for (const auto& r : routes_) {
    const auto it = std::lower_bound(nodes_.begin(), nodes_.end(), key_of(*r), [](const Node& n, std::string_view k) { return n.key < k; });
    auto& place = r->type == PathType::exact ? it->exact : r->type == PathType::prefix ? it->prefix : it->string_prefix;
    if (!place) place = r.get();
  }
  for (std::size_t i = 1; i < nodes_.size(); ++i) {
    int p = static_cast<int>(i) - 1;
    while (p >= 0 && !nodes_[i].key.starts_with(nodes_[static_cast<std::size_t>(p)].key)) p = nodes_[static_cast<std::size_t>(p)].parent;
    nodes_[i].parent = p;
  }
}

const Route* HostRoutes::match(std::string_view path) const {
  if (regex_) {
    for (const Route* r : patterns_)
      if (r->regex && r->regex->Match(re2::StringPiece(path.data(), path.size()), 0, path.size(), re2::RE2::ANCHOR_START, nullptr, 0)) return r;
    return nullptr;
  }
  const auto after = std::upper_bound(nodes_.begin(), nodes_.end(), path, [](std::string_view k, const Node& n) { return k < n.key; });
  for (int i = static_cast<int>(after - nodes_.begin()) - 1; i >= 0; i = nodes_[static_cast<std::size_t>(i)].parent) {
    const Node& n = nodes_[static_cast<std::size_t>(i)];
    if (!path.starts_with(n.key)) continue;
    if (n.exact && n.key.size() == path.size()) return n.exact;
    if (n.prefix && covers_elements(n.key, path)) return n.prefix;
    if (n.string_prefix) return n.string_prefix;
  }
  return nullptr;
}

bool HostRoutes::needs_slash(std::string_view path) const {
  if (regex_ || path.ends_with('/')) return false;
  const auto it = std::upper_bound(nodes_.begin(), nodes_.end(), path, [](std::string_view k, const Node& n) { return k < n.key; });
  for (auto n = it; n != nodes_.end() && n->key.starts_with(path); ++n)
    if (n->key.size() == path.size() + 1 && n->key.back() == '/') return n->string_prefix != nullptr;
  return false;
}

const HostRoutes* RouteTable::host(std::string_view host) const {
  if (const auto it = exact_hosts.find(host); it != exact_hosts.end()) return &it->second;
  const auto dot = host.find('.');
  if (dot == std::string_view::npos || dot == 0) return nullptr;
  const auto it = wildcard_hosts.find(host.substr(dot + 1));
  return it == wildcard_hosts.end() ? nullptr : &it->second;
}

std::shared_ptr<const ClientAuth> RouteTable::client_auth(std::string_view server_name) const {
  const auto* own = host(server_name);
  return own ? own->client_auth() : any_host.client_auth();
}

Match RouteTable::match(std::string_view host, std::string_view path) const {
  Match out;
  const auto look = [&](const HostRoutes& h) {
    out.host = &h;
    out.route = h.match(path);
    if ((!out.route || out.route->path.size() < path.size()) && h.needs_slash(path)) {
      out.add_slash = true;
      out.route = nullptr;
    }
    if (!out.route && !out.add_slash) out.route = h.fallback();
    return out.route != nullptr || out.add_slash;
  };
  if (const auto* own = this->host(host); own && look(*own)) return out;
  // A host that has rules of its own does not fall through to those of any host: its unmatched paths go to the default.
  if (!out.host && look(any_host)) return out;
  out.route = default_route.get();
  return out;
}

const ServerCertificate* RouteTable::certificate(std::string_view name) const {
  if (const auto it = certificates.find(name); it != certificates.end()) return it->second.get();
  if (const auto dot = name.find('.'); dot != std::string_view::npos && dot > 0)
    if (const auto it = wildcard_certificates.find(name.substr(dot + 1)); it != wildcard_certificates.end()) return it->second.get();
  return default_certificate.get();
}

bool normalize_path(std::string_view path, std::string& buffer, std::string_view& out) {
  bool clean = path.starts_with('/');
  for (std::size_t i = 0; clean && i < path.size(); ++i) {
    if (path[i] == '%') clean = false;
    else if (path[i] == '/' && i + 1 < path.size() && (path[i + 1] == '/' || path[i + 1] == '.')) clean = false;
  }
  if (clean) return out = path, true;
  if (!path.starts_with('/')) return false;
  std::string decoded;
  decoded.reserve(path.size());
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      decoded += path[i];
      continue;
    }
    if (i + 2 >= path.size()) return false;
    const int high = hex_digit(path[i + 1]), low = hex_digit(path[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return false;
    decoded += static_cast<char>(high * 16 + low);
    i += 2;
  }
  buffer.clear();
  std::string_view rest = decoded;
  while (!rest.empty()) {
    rest.remove_prefix(1);  // the slash
    const auto end = std::min(rest.find('/'), rest.size());
    const auto element = rest.substr(0, end);
    const bool last = end == rest.size();
    rest.remove_prefix(end);
    if (element.empty() || element == ".") {
      if (last && !buffer.ends_with('/')) buffer += '/';
    } else if (element == "..") {
      if (buffer.empty() || buffer == "/") return false;
      const auto cut = buffer.rfind('/', buffer.size() - (buffer.ends_with('/') ? 2 : 1));
      buffer.resize(cut);
      if (last) buffer += '/';
    } else {
      buffer += '/';
      buffer += element;
    }
  }
  if (buffer.empty()) buffer.push_back('/');
  out = buffer;
  return true;
}

}  // namespace fairlead::ingress
