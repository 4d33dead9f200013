#include "ingress/core/compile.h"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "base/text.h"
#include "ingress/core/annotations.h"
#include "kube/object.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::ingress {
namespace {

using networkingv1::Ingress;
constexpr std::string_view kClassAnnotation = "kubernetes.io/ingress.class";
constexpr std::string_view kDefaultClassAnnotation = "ingressclass.kubernetes.io/is-default-class";
constexpr std::string_view kServiceNameLabel = "kubernetes.io/service-name";

// A backend as an Ingress names it.
struct BackendRef {
  std::string service;  // "ns/name"; empty: none that can be used
  std::string port_name;
  std::int32_t port_number = 0;
  std::string name() const { return fmt::format("{}:{}", service, port_name.empty() ? std::to_string(port_number) : port_name); }
};

struct ParsedPath {
  std::string path;
  PathType type = PathType::prefix;
  BackendRef backend;
  std::string field;
};

struct ParsedRule {
  std::string host;  // lower case
  std::vector<ParsedPath> paths;
};

struct ParsedTls {
  std::vector<std::string> hosts;
  std::string secret;  // "ns/name" or empty
  std::string field;
};

// One Ingress, checked and in our types. Depends on the object alone, so it is kept until the object changes.
struct ParsedIngress {
  std::shared_ptr<const Ingress> object;
  std::string key, label;  // "ns/name", "Ingress ns/name"
  std::string class_name;
  std::pair<std::int64_t, std::int32_t> created{};
  Policy policy;
  std::vector<ParsedRule> rules;
  std::vector<ParsedTls> tls;
  std::optional<BackendRef> default_backend;
  Diagnostics diagnostics;
};

bool is_label(std::string_view s) {
  if (s.empty() || s.size() > 63 || s.front() == '-' || s.back() == '-') return false;
  return std::all_of(s.begin(), s.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

// Empty: good. Source: networking/v1 validation: a DNS-1123 subdomain, or "*." and one.
std::string check_host(std::string_view host) {
  if (host.empty()) return "";
  if (host.starts_with("*.")) host.remove_prefix(2);
  if (host.size() > 253) return "must be no more than 253 characters";
  if (IpAddress::parse(host)) return "must be a DNS name, not an IP address";
  while (true) {
    const auto dot = host.find('.');
    if (!is_label(host.substr(0, dot))) return "must be a DNS-1123 subdomain, or one with *. in front";
    if (dot == std::string_view::npos) return "";
    host.remove_prefix(dot + 1);
  }
}

// Source: networking/v1 validation, which an API server enforces; manifests in files have passed no API server.
std::string check_path(std::string_view path, PathType type) {
  if (path.size() > 4096) return "must be no more than 4096 characters";
  for (const char c : path)
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return "must not hold spaces or control characters";
  if (type == PathType::implementation_specific) return path.empty() || path.starts_with('/') ? "" : "must be an absolute path";
  if (!path.starts_with('/')) return "must be an absolute path";
  for (const std::string_view bad : {"//", "/./", "/../", "%2f", "%2F"})
    if (path.find(bad) != std::string_view::npos) return fmt::format("must not contain '{}'", bad);
  if (path.ends_with("/..") || path.ends_with("/.")) return "must not end with '/.' or '/..'";
  return "";
}

class Parser {
 public:
  explicit Parser(std::shared_ptr<const Ingress> object) {
    out_ = std::make_shared<ParsedIngress>();
    out_->object = std::move(object);
  }

  std::shared_ptr<const ParsedIngress> parse() {
    const auto& o = *out_->object;
    const auto& meta = o.metadata();
    out_->key = kube::key_of(meta);
    out_->label = "Ingress " + out_->key;
    out_->created = {meta.creationtimestamp().seconds(), meta.creationtimestamp().nanos()};
    const std::map<std::string, std::string> annotations(meta.annotations().begin(), meta.annotations().end());
    if (o.spec().has_ingressclassname()) out_->class_name = o.spec().ingressclassname();
    else if (const auto it = annotations.find(std::string(kClassAnnotation)); it != annotations.end()) out_->class_name = it->second;
    out_->policy = parse_annotations(annotations, meta.namespace_(), out_->label, out_->diagnostics);
    if (o.spec().has_defaultbackend()) {
      if (auto b = backend(o.spec().defaultbackend(), "spec.defaultBackend")) out_->default_backend = std::move(*b);
    } else if (o.spec().rules().empty()) {
      problem("spec", "Invalid", "Required value: either `defaultBackend` or `rules` must be there");
    }
    for (int i = 0; i < o.spec().rules_size(); ++i) rule(o.spec().rules(i), fmt::format("spec.rules[{}]", i));
    for (int i = 0; i < o.spec().tls_size(); ++i) tls(o.spec().tls(i), fmt::format("spec.tls[{}]", i));
    return out_;
  }

 private:
  void problem(std::string field, std::string reason, std::string message, Severity severity = Severity::error) {
    out_->diagnostics.push_back({severity, out_->label, std::move(field), std::move(reason), std::move(message)});
  }

  std::optional<BackendRef> backend(const networkingv1::IngressBackend& b, const std::string& field) {
    if (b.has_resource()) {
      problem(field + ".resource", "InvalidBackend", "a resource backend is not something this router can serve");
      return std::nullopt;
    }
    const auto& s = b.service();
    if (!b.has_service() || s.name().empty()) {
      problem(field + ".service.name", "InvalidBackend", "Required value");
      return std::nullopt;
    }
    BackendRef out{fmt::format("{}/{}", out_->object->metadata().namespace_(), s.name()), s.port().name(), s.port().number()};
    if (out.port_name.empty() == (out.port_number == 0) || out.port_number < 0 || out.port_number > 65535) {
      problem(field + ".service.port", "InvalidBackend", "exactly one of name and number (1-65535) must be set");
      return std::nullopt;
    }
    return out;
  }

  void rule(const networkingv1::IngressRule& r, const std::string& field) {
    ParsedRule out;
    out.host = lower(r.host());
    if (const auto why = check_host(out.host); !why.empty()) return problem(field + ".host", "InvalidHost", fmt::format("Invalid value: \"{}\": {}", r.host(), why));
    const auto& http = r.ingressrulevalue().http();
    for (int i = 0; i < http.paths_size(); ++i) path(http.paths(i), fmt::format("{}.http.paths[{}]", field, i), out);
    out_->rules.push_back(std::move(out));
  }

  void path(const networkingv1::HTTPIngressPath& p, const std::string& field, ParsedRule& rule) {
    ParsedPath out;
    out.field = field;
    out.path = p.path();
    if (p.pathtype() == "Exact") out.type = PathType::exact;
    else if (p.pathtype() == "Prefix") out.type = PathType::prefix;
    else if (p.pathtype() == "ImplementationSpecific") out.type = PathType::implementation_specific;
    else return problem(field + ".pathType", "InvalidPath", fmt::format("Unsupported value: \"{}\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"", p.pathtype()));
    if (const auto why = check_path(out.path, out.type); !why.empty()) return problem(field + ".path", "InvalidPath", fmt::format("Invalid value: \"{}\": {}", out.path, why));
    if (out.path.empty()) out.path = "/";
    if (out.type == PathType::exact && out.path.size() > 1 && out.path.ends_with('/'))
      problem(field + ".path", "ExactWithSlash", "only this path with its slash matches; ingress-nginx would also answer the path without it, with a redirect", Severity::info);
    auto b = backend(p.backend(), field + ".backend");
    if (!b) return;
    out.backend = std::move(*b);
    rule.paths.push_back(std::move(out));
  }

  void tls(const networkingv1::IngressTLS& t, const std::string& field) {
    ParsedTls out;
    out.field = field;
    if (!t.secretname().empty()) out.secret = fmt::format("{}/{}", out_->object->metadata().namespace_(), t.secretname());
    for (int i = 0; i < t.hosts_size(); ++i) {
      auto host = lower(t.hosts(i));
      if (const auto why = check_host(host); !why.empty()) problem(fmt::format("{}.hosts[{}]", field, i), "InvalidHost", fmt::format("Invalid value: \"{}\": {}", t.hosts(i), why));
      else out.hosts.push_back(std::move(host));
    }
    out_->tls.push_back(std::move(out));
  }

  std::shared_ptr<ParsedIngress> out_;
};

// Empty: may be set on a message that passes through. Those that frame it, or that the router speaks for itself, may not.
std::string check_custom_header(std::string_view name, std::string_view value) {
  static constexpr std::string_view special = "!#$%&'*+-.^`|~";  // not the underscore: servers take it for a dash
  const auto good = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || special.find(c) != std::string_view::npos; };
  if (name.empty() || name.size() > 128 || !std::all_of(name.begin(), name.end(), good)) return "is not a header name";
  static constexpr std::string_view reserved[] = {"connection", "content-length", "date", "expect", "host", "keep-alive", "proxy-connection", "server", "te", "trailer", "transfer-encoding", "upgrade"};
  if (std::find(std::begin(reserved), std::end(reserved), lower(name)) != std::end(reserved)) return "is the router's own";
  if (value.size() > 4096) return "its value is too long";
  for (const char c : value)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) return "its value must be printable ASCII";
  return "";
}

bool host_covered(std::string_view pattern, std::string_view host) {
  if (pattern == host) return true;
  if (!pattern.starts_with("*.")) return false;
  const auto dot = host.find('.');
  return dot != std::string_view::npos && dot > 0 && host.substr(dot + 1) == pattern.substr(2);
}

Result<std::shared_ptr<const Credentials>> read_credentials(const corev1::Secret& secret, bool map) {
  auto out = std::make_shared<Credentials>();
  if (map) {
    for (const auto& [user, hash] : secret.data()) out->users.emplace_back(user, hash);
  } else {
    const auto it = secret.data().find("auth");
    if (it == secret.data().end()) return fail(ErrorCode::not_found, "the secret has no key \"auth\"");
    std::string_view rest = it->second;
    while (!rest.empty()) {
      const auto end = std::min(rest.find('\n'), rest.size());
      auto line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      const auto colon = line.find(':');
      if (line.empty() || line.front() == '#' || colon == std::string_view::npos) continue;
      auto hash = line.substr(colon + 1);
      hash = hash.substr(0, hash.find(':'));
      out->users.emplace_back(line.substr(0, colon), hash);
    }
  }
  return std::shared_ptr<const Credentials>(std::move(out));
}

}  // namespace

struct Compiler::Impl {
  explicit Impl(CompileOptions o) : options(std::move(o)) {}

  struct UpstreamMemory {
    std::uint32_t id = 0;
    std::shared_ptr<const Upstream> last;
    std::shared_ptr<std::atomic<std::uint32_t>> turn = std::make_shared<std::atomic<std::uint32_t>>(0);
    std::uint64_t used = 0;
  };
  struct StatsMemory {
    std::shared_ptr<UpstreamStats> stats;
    std::uint64_t used = 0;
  };
  struct ConnectorMemory {
    std::shared_ptr<const corev1::Secret> secret;
    std::shared_ptr<const TlsConnector> connector;
    std::string why_not;
    std::uint64_t used = 0;
  };
  struct CertificateMemory {
    std::shared_ptr<const corev1::Secret> secret;
    std::shared_ptr<const ServerCertificate> certificate;
    std::string why_not;
  };

  CompileOptions options;
  std::uint64_t generation = 0;
  std::map<std::string, std::shared_ptr<const ParsedIngress>> parsed;
  std::map<std::string, UpstreamMemory> upstreams;  // by name and transport
  std::map<std::string, StatsMemory> upstream_stats;
  std::map<std::string, ConnectorMemory> connectors;
  std::vector<std::uint32_t> free_ids;
  std::uint32_t next_id = 0;
  std::map<std::string, CertificateMemory> certificates;
  struct ClientAuthMemory {
    std::string ca, crl, why_not;
    bool found = false;
    std::shared_ptr<const ClientAuth> auth;
    std::uint64_t used = 0;
  };
  std::map<std::string, ClientAuthMemory> client_auths;  // by all that the annotations say
  std::uint64_t next_client_auth = 0;
  std::map<std::string, std::pair<std::shared_ptr<RouteStats>, std::uint64_t>> route_stats;

  // One call of compile().
  struct Run {
    const Objects& objects;
    Compiled& out;
    RouteTable& table;
    std::map<std::string_view, std::vector<const discoveryv1::EndpointSlice*>> slices_of;
    std::vector<std::shared_ptr<const ParsedIngress>> ours;
  };

  void index_slices(Run& run) {
    for (const auto& [key, slice] : run.objects.slices) {
      const auto& labels = slice->metadata().labels();
      const auto it = labels.find(std::string(kServiceNameLabel));
      if (it != labels.end()) run.slices_of[it->second].push_back(slice.get());
    }
  }

  bool is_ours(Run& run, const ParsedIngress& p) {
    if (options.any_class_if_none && run.objects.classes.empty()) return true;
    if (p.class_name.empty()) return options.without_class || p.object->spec().has_ingressclassname() || default_class_is_ours(run);
    const auto it = run.objects.classes.find(p.class_name);
    return it != run.objects.classes.end() && options.controllers.contains(it->second->spec().controller());
  }

  // The API server fills the class in; in files nobody does. Newest default wins, then the lower name.
  bool default_class_is_ours(const Run& run) const {
    const networkingv1::IngressClass* best = nullptr;
    for (const auto& [name, c] : run.objects.classes) {
      const auto it = c->metadata().annotations().find(std::string(kDefaultClassAnnotation));
      if (it == c->metadata().annotations().end() || it->second != "true") continue;
      if (!best || c->metadata().creationtimestamp().seconds() > best->metadata().creationtimestamp().seconds()) best = c.get();
    }
    return best && options.controllers.contains(best->spec().controller());
  }

  // A class of ours may point at parameters; there are none that we know.
  void check_classes(Run& run) const {
    for (const auto& [name, c] : run.objects.classes)
      if (options.controllers.contains(c->spec().controller()) && c->spec().has_parameters())
        run.out.diagnostics.push_back({Severity::warning, "IngressClass " + name, "spec.parameters", "ParametersRefused", "refused by design: the router is configured by its flags; they have no effect"});
  }

  void parse_all(Run& run) {
    for (auto it = parsed.begin(); it != parsed.end();) it = run.objects.ingresses.contains(it->first) ? std::next(it) : parsed.erase(it);
    for (const auto& [key, object] : run.objects.ingresses) {
      auto& p = parsed[key];
      if (!p || p->object != object) p = Parser(object).parse();
      if (!is_ours(run, *p)) continue;
      run.out.taken.insert(key);
      run.out.diagnostics.insert(run.out.diagnostics.end(), p->diagnostics.begin(), p->diagnostics.end());
      run.ours.push_back(p);
    }
    std::stable_sort(run.ours.begin(), run.ours.end(), [](const auto& a, const auto& b) { return std::tie(a->created, a->key) < std::tie(b->created, b->key); });
  }

  static void report(Run& run, const ParsedIngress& p, Severity severity, std::string field, std::string reason, std::string message) {
    run.out.diagnostics.push_back({severity, p.label, std::move(field), std::move(reason), std::move(message)});
  }

  // ---- upstreams

  // Appends the endpoints of one slice for a service port's name.
  static void take_endpoints(const discoveryv1::EndpointSlice& slice, std::string_view port_name, std::vector<Endpoint>& ready, std::vector<Endpoint>& terminating) {
    if (slice.addresstype() != "IPv4" && slice.addresstype() != "IPv6") return;
    for (const auto& port : slice.ports()) {
      if (port.name() != port_name || (port.has_protocol() && port.protocol() != "TCP")) continue;
      if (port.port() < 1 || port.port() > 65535) continue;
      for (const auto& e : slice.endpoints()) {
        const bool is_ready = !e.conditions().has_ready() || e.conditions().ready();
        const bool serves = e.conditions().has_serving() ? e.conditions().serving() : is_ready;
        if (!is_ready && !(serves && e.conditions().terminating())) continue;
        for (const auto& text : e.addresses()) {
          const auto ip = IpAddress::parse(text);
          if (!ip) continue;
          Endpoint one{{*ip, static_cast<Port>(port.port())}, 0};
          one.hash = endpoint_hash(one.address);
          (is_ready ? ready : terminating).push_back(one);
        }
      }
    }
  }

  std::vector<Endpoint> endpoints_of(Run& run, const std::string& service_key, std::string_view port_name) {
    std::vector<Endpoint> ready, terminating;
    const auto split = kube::split_key(service_key);
    if (const auto it = run.slices_of.find(split.name); it != run.slices_of.end())
      for (const auto* slice : it->second)
        if (slice->metadata().namespace_() == split.ns) take_endpoints(*slice, port_name, ready, terminating);
    auto& out = ready.empty() ? terminating : ready;
    std::sort(out.begin(), out.end(), [](const Endpoint& a, const Endpoint& b) { return a.address < b.address; });
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return std::move(out);
  }

  // ---- TLS to backends

  static std::string describe(const BackendTls& t, bool http2) {
    return fmt::format("{}|{}|{}|{}|{}|{}|{}|{}|{}", t.secret, t.verify, t.verify_depth, t.name, t.send_name, t.tls12, t.tls13, t.ciphers, http2);
  }

  ConnectorMemory& connector(Run& run, const BackendTls& t, bool http2) {
    auto& memory = connectors[describe(t, http2)];
    std::shared_ptr<const corev1::Secret> secret;
    if (!t.secret.empty()) {
      run.out.secrets.insert(t.secret);
      if (const auto it = run.objects.secrets.find(t.secret); it != run.objects.secrets.end()) secret = it->second;
    }
    const bool known = memory.used != 0 && memory.secret == secret;
    memory.used = generation;
    if (known) return memory;
    memory.secret = secret;
    memory.connector = nullptr;
    memory.why_not.clear();
    const auto key = [&](const char* name) {
      const auto it = secret ? secret->data().find(name) : decltype(secret->data().end()){};
      return secret && it != secret->data().end() ? it->second : std::string();
    };
    if (!t.secret.empty() && !secret) memory.why_not = fmt::format("secret {} does not exist", t.secret);
    else if (t.verify && key("ca.crt").empty()) memory.why_not = t.secret.empty() ? "proxy-ssl-verify needs proxy-ssl-secret with ca.crt" : fmt::format("secret {} lacks ca.crt", t.secret);
    else if (!options.load_connector) memory.why_not = "there is no TLS here";
    else if (auto made = options.load_connector(t, http2, key("ca.crt"), key("tls.crt"), key("tls.key"))) memory.connector = std::move(*made);
    else memory.why_not = made.error().message;
    return memory;
  }

  // How to reach a service port, and what tells that way from others to the same one.
  struct Way {
    Transport transport;
    std::string key;
  };

  // A port may say by appProtocol that it speaks HTTP/2 in the clear; the annotation has the last word. `host`: of a backend outside
  // of the cluster.
  Way way_to(Run& run, const ParsedIngress* p, const Policy& policy, const std::string& service, const std::string& host, const std::string& app_protocol, const std::string& field) {
    const auto protocol = policy.protocol.value_or(app_protocol == "kubernetes.io/h2c" ? BackendProtocol::grpc : BackendProtocol::http);
    Way out{{}, std::string(to_string(protocol))};
    out.transport.http2 = protocol == BackendProtocol::grpc || protocol == BackendProtocol::grpcs;
    out.transport.tls = protocol == BackendProtocol::https || protocol == BackendProtocol::grpcs;
    if (!out.transport.tls) return out;
    auto tls = policy.backend_tls;
    const auto split = kube::split_key(service);
    if (tls.name.empty()) tls.name = host.empty() ? fmt::format("{}.{}.svc", split.name, split.ns) : host;
    out.key += "|" + describe(tls, out.transport.http2);
    const auto& memory = connector(run, tls, out.transport.http2);
    out.transport.connector = memory.connector;
    if (!memory.connector && p) report(run, *p, Severity::error, field, "BackendTlsNotUsable", memory.why_not + "; its requests are answered with 503");
    return out;
  }

  // Null with a reason when there is no such service port. `p`: who gets the diagnostics. With service-upstream, the Service's own
  // address instead of its endpoints, where it has one.
  std::shared_ptr<const Upstream> upstream(Run& run, const ParsedIngress* p, const Policy& policy, const BackendRef& ref, const std::string& field, std::string& why_not) {
    const auto service = run.objects.services.find(ref.service);
    if (service == run.objects.services.end()) return why_not = fmt::format("Service {} does not exist", ref.service), nullptr;
    if (service->second->spec().type() == "ExternalName") return external_name(run, p, policy, *service->second, ref, field, why_not);
    const corev1::ServicePort* port = nullptr;
    for (const auto& p : service->second->spec().ports())
      if (ref.port_name.empty() ? p.port() == ref.port_number : p.name() == ref.port_name) port = &p;
    if (!port) return why_not = fmt::format("Service {} has no port {}", ref.service, ref.port_name.empty() ? std::to_string(ref.port_number) : ref.port_name), nullptr;
    const auto name = fmt::format("{}:{}", ref.service, port->port());
    auto way = way_to(run, p, policy, ref.service, "", port->appprotocol(), field);
    if (const auto ip = IpAddress::parse(service->second->spec().clusterip()); policy.service_upstream && ip) {
      const SocketAddress address{*ip, static_cast<Port>(port->port())};
      return remember(run, name + " (service)", std::move(way), [&] { return std::vector<Endpoint>{{address, endpoint_hash(address)}}; });
    }
    return remember(run, name, std::move(way), [&] { return endpoints_of(run, ref.service, port->name()); });
  }

  // The value of this name and way, made once a run; the same object as before when nothing about it has changed.
  template <typename MakeEndpoints>
  std::shared_ptr<const Upstream> remember(Run& run, const std::string& name, Way way, MakeEndpoints&& make_endpoints) {
    auto& memory = upstreams[name + " " + way.key];
    if (memory.used == generation) return memory.last;
    auto& stats = upstream_stats[name];
    stats.used = generation;
    if (!stats.stats) stats.stats = std::make_shared<UpstreamStats>(options.threads);
    if (memory.used == 0) {
      if (free_ids.empty()) memory.id = next_id++;
      else memory.id = free_ids.back(), free_ids.pop_back();
    }
    memory.used = generation;
    std::vector<Endpoint> endpoints = make_endpoints();
    if (!memory.last || memory.last->endpoints != endpoints || memory.last->transport != way.transport) {
      auto made = std::make_shared<Upstream>();
      made->id = memory.id;
      made->name = name;
      made->transport = std::move(way.transport);
      made->endpoints = std::move(endpoints);
      made->turn = memory.turn;
      made->stats = stats.stats;
      memory.last = std::move(made);
    }
    run.table.upstreams.push_back(memory.last);
    return memory.last;
  }

  // ---- names outside of the cluster

  bool may_reach(const IpAddress& ip) const {
    return options.local_addresses || !(ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast());
  }

  std::vector<Endpoint> endpoints_at(Run& run, const std::string& host, Port port) {
    std::vector<IpAddress> addresses;
    if (const auto ip = IpAddress::parse(host)) {
      addresses.push_back(*ip);
    } else {
      run.out.names.insert(host);
      if (const auto it = run.objects.names.find(host); it != run.objects.names.end()) addresses = it->second;
    }
    std::vector<Endpoint> out;
    for (const auto& ip : addresses)
      if (may_reach(ip)) out.push_back({{ip, port}, endpoint_hash({ip, port})});
    std::sort(out.begin(), out.end(), [](const Endpoint& a, const Endpoint& b) { return a.address < b.address; });
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }

  // Why a name that has been looked for cannot be used; "": it can, or nobody knows yet.
  std::string trouble_with(const Run& run, const std::string& host) const {
    if (const auto ip = IpAddress::parse(host)) return may_reach(*ip) ? "" : fmt::format("{} is an address of the router's own machine or link", host);
    const auto it = run.objects.names.find(host);
    if (it == run.objects.names.end()) return "";
    if (it->second.empty()) return fmt::format("the name {} has no address", host);
    return std::any_of(it->second.begin(), it->second.end(), [&](const auto& ip) { return may_reach(ip); }) ? "" : fmt::format("the name {} leads to the router's own machine or link", host);
  }

  std::shared_ptr<const Upstream> external_name(Run& run, const ParsedIngress* p, const Policy& policy, const corev1::Service& service, const BackendRef& ref, const std::string& field, std::string& why_not) {
    auto host = lower(service.spec().externalname());
    while (host.ends_with('.')) host.pop_back();
    auto port = ref.port_number;
    for (const auto& p : service.spec().ports())
      if (ref.port_name.empty() ? p.port() == ref.port_number : p.name() == ref.port_name) port = p.port();
    if (port == 0) return why_not = fmt::format("Service {} has no port {}", ref.service, ref.port_name), nullptr;
    if (!IpAddress::parse(host) && (host.empty() || host.starts_with("*") || !check_host(host).empty()))
      return why_not = fmt::format("Service {}: spec.externalName: \"{}\" is not a DNS name", ref.service, host), nullptr;
    if (auto why = trouble_with(run, host); !why.empty()) return why_not = fmt::format("Service {}: {}", ref.service, why), nullptr;
    return remember(run, fmt::format("{}:{}", ref.service, port), way_to(run, p, policy, ref.service, host, "", field), [&] { return endpoints_at(run, host, static_cast<Port>(port)); });
  }

  // "auth.default.svc.cluster.local" is a Service that we know: its endpoints are asked, without DNS.
  static std::string service_of_name(std::string_view host) {
    const auto first = host.find('.');
    const auto second = first == std::string_view::npos ? first : host.find('.', first + 1);
    if (second == std::string_view::npos) return "";
    const auto rest = host.substr(second + 1);
    if (rest != "svc" && !rest.starts_with("svc.")) return "";
    return fmt::format("{}/{}", host.substr(first + 1, second - first - 1), host.substr(0, first));
  }

  std::shared_ptr<const Upstream> upstream_of_host(Run& run, const Policy& policy, const std::string& host, Port port, std::string& why_not) {
    if (const auto key = service_of_name(host); !key.empty()) {
      const auto it = run.objects.services.find(key);
      if (it != run.objects.services.end() && it->second->spec().clusterip() != "None") return upstream(run, nullptr, policy, BackendRef{key, "", port}, "", why_not);
    }
    if (why_not = trouble_with(run, host); !why_not.empty()) return nullptr;
    return remember(run, fmt::format("{}:{}", host, port), way_to(run, nullptr, policy, "", host, "", ""), [&] { return endpoints_at(run, host, port); });
  }

  // Where a request of the router's own goes.
  void aim(Run& run, const ParsedIngress& p, OwnRequest& request, std::string_view annotation, std::string_view consequence) {
    request.to_itself = request.host == "$host" || run.table.host(request.host) != nullptr;
    if (request.to_itself) return;
    auto policy = std::make_shared<Policy>();
    policy->max_body_bytes = 0;
    policy->connect_timeout = p.policy.connect_timeout;
    policy->read_timeout = p.policy.read_timeout;
    policy->send_timeout = p.policy.send_timeout;
    policy->retries.tries = 2;
    policy->ssl_redirect = false;
    policy->protocol = request.https ? BackendProtocol::https : BackendProtocol::http;
    // Checked as the Ingress's own backends are (proxy-ssl-verify), by the name in the URL.
    policy->backend_tls = p.policy.backend_tls;
    policy->backend_tls.name = request.host;
    policy->backend_tls.send_name = !IpAddress::parse(request.host);
    policy->finish();
    const auto field = fmt::format("metadata.annotations[{}{}]", kAnnotationPrefix, annotation);
    std::string why_not;
    auto up = upstream_of_host(run, *policy, request.host, request.port, why_not);
    if (!up) return report(run, p, Severity::error, field, "BackendNotFound", fmt::format("{}; {}", why_not, consequence));
    if (!up->transport.usable()) return report(run, p, Severity::error, field, "BackendTlsNotUsable", fmt::format("TLS cannot be set up, see proxy-ssl-*; {}", consequence));
    request.target = std::make_shared<const Target>(Target{std::move(policy), std::move(up)});
  }

  // The fields that a ConfigMap holds. Null with a reason when it is not there.
  std::optional<HeaderList> headers_of(Run& run, const ParsedIngress& p, const std::string& key, std::string_view annotation) {
    run.out.config_maps.insert(key);
    const auto it = run.objects.config_maps.find(key);
    if (it == run.objects.config_maps.end()) return std::nullopt;
    HeaderList out;
    for (const auto& [name, value] : std::map<std::string, std::string>(it->second->data().begin(), it->second->data().end())) {
      const auto why = check_custom_header(name, value);
      if (why.empty()) out.emplace_back(name, value);
      else report(run, p, Severity::error, fmt::format("metadata.annotations[{}{}]", kAnnotationPrefix, annotation), "InvalidHeader", fmt::format("ConfigMap {}: \"{}\": {}; it is left out", key, name, why));
    }
    return out;
  }

  Target target(Run& run, const ParsedIngress& p, const std::shared_ptr<const Policy>& policy, const BackendRef& ref, const std::string& field) {
    std::string why_not;
    auto up = upstream(run, &p, *policy, ref, field, why_not);
    if (!up) report(run, p, Severity::error, field, "BackendNotFound", why_not + "; its requests are answered with 503");
    return {policy, std::move(up)};
  }

  // ---- routes

  std::shared_ptr<RouteStats> stats_of(const Route& r) {
    auto& memory = route_stats[r.name()];
    if (!memory.first) memory.first = std::make_shared<RouteStats>(options.threads);
    memory.second = generation;
    return memory.first;
  }

  std::shared_ptr<Policy> policy_of(Run& run, const ParsedIngress& p) {
    auto policy = std::make_shared<Policy>(p.policy);
    if (const auto& c = policy->client_certificates; !c.secret.empty() && c.verify != VerifyClient::off && p.rules.empty()) {
      policy->refuse = "auth-tls-secret without a host";
      report(run, p, Severity::error, fmt::format("metadata.annotations[{}auth-tls-secret]", kAnnotationPrefix), "InvalidAnnotation",
             "client certificates are asked for by host, and this Ingress has no rules; all requests are refused");
      policy->finish();
    }
    auto& auth = policy->basic_auth;
    if (auth.enabled && !auth.secret.empty()) {
      run.out.secrets.insert(auth.secret);
      const auto it = run.objects.secrets.find(auth.secret);
      auto why = fmt::format("secret {} does not exist", auth.secret);
      if (it != run.objects.secrets.end()) {
        if (auto read = read_credentials(*it->second, auth.map)) auth.credentials = std::move(*read);
        else why = read.error().message;
      }
      if (!auth.credentials)
        report(run, p, Severity::error, fmt::format("metadata.annotations[{}auth-secret]", kAnnotationPrefix), "SecretNotUsable", why + "; all requests are refused");
    }
    if (policy->canary.enabled) return policy;  // the main Ingress speaks for both
    if (policy->external_auth.enabled) finish_auth(run, p, *policy);
    if (policy->mirror.enabled) aim(run, p, policy->mirror.request, "mirror-target", "nothing is mirrored");
    if (!policy->response_headers_from.empty()) {
      auto headers = headers_of(run, p, policy->response_headers_from, "custom-headers");
      if (headers) policy->response_headers = std::move(*headers);
      else report(run, p, Severity::error, fmt::format("metadata.annotations[{}custom-headers]", kAnnotationPrefix), "ConfigMapNotFound", fmt::format("ConfigMap {} does not exist; no header is added", policy->response_headers_from));
    }
    return policy;
  }

  void finish_auth(Run& run, const ParsedIngress& p, Policy& policy) {
    auto& auth = policy.external_auth;
    aim(run, p, auth.request, "auth-url", "all requests are refused");
    if (auth.headers_from.empty()) return;
    auto headers = headers_of(run, p, auth.headers_from, "auth-proxy-set-headers");
    if (headers) {
      auth.headers = std::move(*headers);
      return;
    }
    policy.refuse = "auth-proxy-set-headers: the ConfigMap does not exist";
    report(run, p, Severity::error, fmt::format("metadata.annotations[{}auth-proxy-set-headers]", kAnnotationPrefix), "ConfigMapNotFound", fmt::format("ConfigMap {} does not exist; all requests are refused", auth.headers_from));
  }

  static HostRoutes& host_routes(RouteTable& table, const std::string& host) {
    if (host.empty()) return table.any_host;
    if (host.starts_with("*.")) return table.wildcard_hosts[host.substr(2)];
    return table.exact_hosts[host];
  }

  // use-regex and rewrite-target turn all paths of the host, of all Ingresses, into regular expressions.
  void find_regex_hosts(Run& run) {
    for (const auto& p : run.ours) {
      for (const auto& r : p->rules)
        if (!p->policy.canary.enabled) host_routes(run.table, r.host);  // all hosts are known before policies ask for them
      if (p->policy.canary.enabled || !(p->policy.use_regex || p->policy.rewrite_target)) continue;
      for (const auto& r : p->rules) host_routes(run.table, r.host).set_regex(true);
    }
  }

  static std::shared_ptr<const re2::RE2> pattern(const std::string& path, std::string& why_not) {
    re2::RE2::Options options;
    options.set_case_sensitive(false);
    options.set_log_errors(false);
    options.set_max_mem(4 << 20);
    auto re = std::make_shared<re2::RE2>(path, options);
    if (!re->ok()) return why_not = re->error(), nullptr;
    return re;
  }

  void add_path(Run& run, const ParsedIngress& p, const std::shared_ptr<const Policy>& policy, const ParsedRule& rule, const ParsedPath& path) {
    auto route = std::make_shared<Route>();
    route->ingress = p.key;
    route->host = rule.host;
    route->path = path.path;
    route->type = path.type;
    route->tls = std::any_of(p.tls.begin(), p.tls.end(), [&](const ParsedTls& t) {
      return t.hosts.empty() || std::any_of(t.hosts.begin(), t.hosts.end(), [&](const auto& h) { return host_covered(h, rule.host); });
    });
    auto& host = host_routes(run.table, rule.host);
    if (host.regex()) {
      std::string why_not;
      route->regex = pattern(path.path, why_not);
      if (!route->regex) return report(run, p, Severity::error, path.field + ".path", "InvalidPath", fmt::format("Invalid value: \"{}\": not a regular expression: {}", path.path, why_not));
    }
    route->target = target(run, p, policy, path.backend, path.field + ".backend.service");
    route->stats = stats_of(*route);
    if (host.add(route)) run.table.routes.push_back(route);
    else report(run, p, Severity::warning, path.field + ".path", "Conflict", fmt::format("{}{} is routed by an older Ingress already", rule.host.empty() ? "*" : rule.host, path.path));
  }

  std::shared_ptr<const Route> fallback(Run& run, const ParsedIngress& p, const std::shared_ptr<const Policy>& policy, const std::string& host) {
    auto route = std::make_shared<Route>();
    route->ingress = p.key;
    route->host = host;
    route->path = "/";
    route->target = target(run, p, policy, *p.default_backend, "spec.defaultBackend.service");
    route->stats = stats_of(*route);
    return route;
  }

  void add_ingress(Run& run, const ParsedIngress& p) {
    const std::shared_ptr<const Policy> policy = policy_of(run, p);
    for (const auto& rule : p.rules) {
      auto& host = host_routes(run.table, rule.host);
      for (const auto& path : rule.paths) add_path(run, p, policy, rule, path);
      if (p.default_backend && !host.fallback()) host.set_fallback(fallback(run, p, policy, rule.host));
    }
    // A default backend without rules takes what nobody else does.
    if (p.default_backend && p.rules.empty()) {
      auto route = fallback(run, p, policy, "");
      if (!run.table.default_route) run.table.default_route = route, run.table.routes.push_back(std::move(route));
      else report(run, p, Severity::warning, "spec.defaultBackend", "Conflict", "an older Ingress is the default backend already");
    }
    if (p.policy.from_to_www_redirect) add_www(run, p);
  }

  static void add_www(Run& run, const ParsedIngress& p) {
    for (const auto& r : p.rules) {
      if (r.host.empty() || r.host.starts_with("*.")) continue;
      run.table.www_redirects.emplace(r.host.starts_with("www.") ? r.host.substr(4) : "www." + r.host, r.host);
    }
  }

  void add_canary(Run& run, const ParsedIngress& p) {
    const std::shared_ptr<const Policy> policy = policy_of(run, p);
    for (const auto& rule : p.rules)
      for (const auto& path : rule.paths) {
        Route* main = nullptr;
        for (const auto& r : host_routes(run.table, rule.host).routes())
          if (r->path == path.path && (r->regex || r->type == path.type)) main = const_cast<Route*>(r.get());  // made in this very run
        if (!main) report(run, p, Severity::warning, path.field + ".path", "CanaryAlone", "no other Ingress routes this host and path, so there is nothing to be the canary of");
        else if (main->canary) report(run, p, Severity::warning, path.field + ".path", "Conflict", "this path has a canary already");
        else main->canary = std::make_unique<Target>(target(run, p, policy, path.backend, path.field + ".backend.service"));
      }
  }

  void add_default_backend(Run& run) {
    if (run.table.default_route || options.default_backend.empty()) return;
    const auto colon = options.default_backend.rfind(':');
    BackendRef ref{options.default_backend.substr(0, colon), options.default_backend.substr(colon + 1), 0};
    if (!ref.port_name.empty() && std::all_of(ref.port_name.begin(), ref.port_name.end(), [](char c) { return c >= '0' && c <= '9'; }))
      ref.port_number = std::stoi(ref.port_name.substr(0, 6)), ref.port_name.clear();
    auto route = std::make_shared<Route>();
    route->path = "/";
    std::string why_not;
    auto policy = std::make_shared<Policy>();
    policy->ssl_redirect = false;
    policy->finish();
    route->target = {policy, upstream(run, nullptr, *policy, ref, "", why_not)};
    if (!route->target.upstream) run.out.diagnostics.push_back({Severity::error, "--default-backend-service", "", "BackendNotFound", why_not});
    route->stats = stats_of(*route);
    run.table.routes.push_back(route);
    run.table.default_route = std::move(route);
  }

  // ---- certificates

  std::shared_ptr<const ServerCertificate> certificate(Run& run, const std::string& secret_key, std::string& why_not) {
    run.out.secrets.insert(secret_key);
    const auto it = run.objects.secrets.find(secret_key);
    if (it == run.objects.secrets.end()) return certificates.erase(secret_key), why_not = fmt::format("secret {} does not exist", secret_key), nullptr;
    auto& memory = certificates[secret_key];
    if (memory.secret != it->second) {
      memory = {it->second, nullptr, ""};
      const auto& data = it->second->data();
      const auto chain = data.find("tls.crt"), key = data.find("tls.key");
      if (chain == data.end() || key == data.end()) {
        memory.why_not = fmt::format("secret {} lacks tls.crt or tls.key", secret_key);
      } else if (options.load_certificate) {
        if (auto made = options.load_certificate(chain->second, key->second)) memory.certificate = std::move(*made);
        else memory.why_not = fmt::format("secret {}: {}", secret_key, made.error().message);
      }
    }
    why_not = memory.why_not;
    return memory.certificate;
  }

  void add_certificates(Run& run) {
    run.table.default_certificate = options.fallback_certificate;
    if (!options.default_certificate.empty()) {
      std::string why_not;
      if (auto c = certificate(run, options.default_certificate, why_not)) run.table.default_certificate = std::move(c);
      else run.out.diagnostics.push_back({Severity::error, "--default-ssl-certificate", "", "SecretNotUsable", why_not});
    }
    for (const auto& p : run.ours)
      for (const auto& t : p->tls) {
        if (t.secret.empty()) continue;
        std::string why_not;
        const auto c = certificate(run, t.secret, why_not);
        if (!c && !why_not.empty()) report(run, *p, Severity::error, t.field + ".secretName", "SecretNotUsable", why_not + "; the default certificate is served");
        if (!c) continue;
        std::vector<std::string> hosts = t.hosts;
        if (hosts.empty())
          for (const auto& r : p->rules)
            if (!r.host.empty()) hosts.push_back(r.host);
        for (const auto& h : hosts) {
          if (h.starts_with("*.")) run.table.wildcard_certificates.emplace(h.substr(2), c);
          else run.table.certificates.emplace(h, c);
        }
      }
  }

  // ---- certificates of clients

  // The same object while neither the annotations nor the secret's content change.
  ClientAuthMemory& client_auth(Run& run, const ClientCertificates& c) {
    run.out.secrets.insert(c.secret);
    auto& memory = client_auths[fmt::format("{}\n{}\n{}\n{}\n{}\n{}", c.secret, static_cast<int>(c.verify), c.depth, c.error_page, c.pass_certificate, c.match_cn ? c.match_cn->pattern() : "")];
    if (memory.used == generation) return memory;
    memory.used = generation;
    const auto it = run.objects.secrets.find(c.secret);
    const bool found = it != run.objects.secrets.end();
    const auto value = [&](const char* key) {
      const auto v = found ? it->second->data().find(key) : decltype(it->second->data().find(key)){};
      return found && v != it->second->data().end() ? v->second : std::string();
    };
    auto ca = value("ca.crt"), crl = value("ca.crl");
    if (memory.auth && memory.found == found && memory.ca == ca && memory.crl == crl) return memory;
    auto auth = std::make_shared<ClientAuth>(ClientAuth{fmt::format("client-auth-{}", ++next_client_auth), c.verify, c.depth, c.error_page, c.pass_certificate, c.match_cn, nullptr});
    memory.why_not.clear();
    if (!found) {
      memory.why_not = fmt::format("secret {} does not exist", c.secret);
    } else if (ca.empty()) {
      memory.why_not = fmt::format("secret {} has no key \"ca.crt\"", c.secret);
    } else if (options.load_authorities) {
      if (auto made = options.load_authorities(ca, crl)) auth->authorities = std::move(*made);
      else memory.why_not = fmt::format("secret {}: {}", c.secret, made.error().message);
    }
    memory.found = found;
    memory.ca = std::move(ca);
    memory.crl = std::move(crl);
    memory.auth = std::move(auth);
    return memory;
  }

  void add_client_auth(Run& run) {
    const auto field = fmt::format("metadata.annotations[{}auth-tls-secret]", kAnnotationPrefix);
    for (const auto& p : run.ours) {
      const auto& c = p->policy.client_certificates;
      if (p->policy.canary.enabled || c.secret.empty() || c.verify == VerifyClient::off) continue;
      const auto& memory = client_auth(run, c);
      if (!memory.why_not.empty()) report(run, *p, Severity::error, field, "SecretNotUsable", memory.why_not + "; all requests are refused");
      for (const auto& r : p->rules) {
        auto& host = host_routes(run.table, r.host);
        if (!host.client_auth()) host.set_client_auth(memory.auth);
        else if (host.client_auth() != memory.auth)
          report(run, *p, Severity::warning, field, "Conflict", fmt::format("an older Ingress says what {} asks of client certificates", r.host.empty() ? "*" : r.host));
      }
    }
    std::erase_if(client_auths, [&](const auto& m) { return m.second.used != generation; });
  }

  void forget_unused() {
    for (auto it = upstreams.begin(); it != upstreams.end();) {
      if (it->second.used == generation) ++it;
      else free_ids.push_back(it->second.id), it = upstreams.erase(it);
    }
    std::erase_if(upstream_stats, [&](const auto& m) { return m.second.used != generation; });
    std::erase_if(connectors, [&](const auto& m) { return m.second.used != generation; });
    for (auto it = route_stats.begin(); it != route_stats.end();) it = it->second.second == generation ? std::next(it) : route_stats.erase(it);
  }

  Compiled compile(const Objects& objects) {
    ++generation;
    Compiled out;
    auto table = std::make_shared<RouteTable>();
    table->generation = generation;
    Run run{objects, out, *table, {}, {}};
    index_slices(run);
    check_classes(run);
    parse_all(run);
    find_regex_hosts(run);
    for (const auto& p : run.ours)
      if (!p->policy.canary.enabled) add_ingress(run, *p);
    for (const auto& p : run.ours)
      if (p->policy.canary.enabled) add_canary(run, *p);
    add_default_backend(run);
    add_certificates(run);
    add_client_auth(run);
    for (auto& [name, host] : table->exact_hosts) host.finish();
    for (auto& [name, host] : table->wildcard_hosts) host.finish();
    table->any_host.finish();
    for (auto it = table->www_redirects.begin(); it != table->www_redirects.end();)
      it = table->exact_hosts.contains(it->first) ? table->www_redirects.erase(it) : std::next(it);
    forget_unused();
    table->upstream_ids = next_id;
    out.table = std::move(table);
    return out;
  }
};

Compiler::Compiler(CompileOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Compiler::~Compiler() = default;
Compiled Compiler::compile(const Objects& objects) { return impl_->compile(objects); }

}  // namespace fairlead::ingress
