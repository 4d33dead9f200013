#include "kube/kubeconfig.h"

#include <cstdlib>

#include "base/files.h"
#include "kube/base64.h"
#include "kube/codec.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;

// An object of the file and its path in it, for errors.
struct Node {
  const json::object* object = nullptr;
  std::string path;

  std::string at(std::string_view field) const { return path.empty() ? std::string(field) : fmt::format("{}.{}", path, field); }

  Result<std::string> text(std::string_view field) const {
    const auto* v = object->if_contains(field);
    if (!v || v->is_null()) return std::string();
    if (!v->is_string()) return fail(ErrorCode::invalid_argument, "{}: must be a string", at(field));
    return std::string(v->get_string());
  }
  Result<bool> flag(std::string_view field) const {
    const auto* v = object->if_contains(field);
    if (!v || v->is_null()) return false;
    if (!v->is_bool()) return fail(ErrorCode::invalid_argument, "{}: must be true or false", at(field));
    return v->get_bool();
  }
  Result<> refuse(std::string_view field, std::string_view why) const {
    const auto* v = object->if_contains(field);
    const bool absent = !v || v->is_null() || (v->is_string() && v->get_string().empty());
    if (absent) return {};
    return fail(ErrorCode::unimplemented, "{}: {}", at(field), why);
  }
};

// The entry called `name` of a list such as clusters: [{name: x, cluster: {...}}].
Result<Node> find_named(const json::object& root, std::string_view list, std::string_view member, std::string_view name) {
  const auto* v = root.if_contains(list);
  if (v && !v->is_null() && !v->is_array()) return fail(ErrorCode::invalid_argument, "{}: must be a list", list);
  static const json::array none;
  const json::array& items = v && v->is_array() ? v->get_array() : none;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", list, i);
    const auto* item = items[i].if_object();
    if (!item) return fail(ErrorCode::invalid_argument, "{}: must be an object", path);
    FL_TRY(const auto item_name, Node{item, path}.text("name"));
    if (item_name != name) continue;
    const auto* body = item->if_contains(member);
    if (!body || !body->is_object()) return fail(ErrorCode::invalid_argument, "{}.{}: must be an object", path, member);
    return Node{&body->get_object(), fmt::format("{}.{}", path, member)};
  }
  return fail(ErrorCode::not_found, "{}: none is called \"{}\"", list, name);
}

std::string resolve(const std::string& folder, const std::string& file) {
  return file.starts_with('/') || folder.empty() ? file : fmt::format("{}/{}", folder, file);
}

// A PEM document that is embedded in base64 as `field`-data or lies in the file `field`. Embedded wins, as in kubectl.
// `from` gets the file's path.
Result<std::string> pem(const Node& node, std::string_view field, const std::string& folder, std::string& from) {
  const std::string data_field = fmt::format("{}-data", field);
  FL_TRY(const auto data, node.text(data_field));
  if (!data.empty()) {
    auto bytes = from_base64(data);
    if (!bytes) return fail(ErrorCode::invalid_argument, "{}: not base64", node.at(data_field));
    return std::move(*bytes);
  }
  FL_TRY(const auto file, node.text(field));
  if (file.empty()) return std::string();
  from = resolve(folder, file);
  FL_TRY_CTX(auto text, read_file(from), "{}", node.at(field));
  return text;
}

Result<> check_server(const Node& cluster, const std::string& server) {
  if (server.empty()) return fail(ErrorCode::invalid_argument, "{}: Required value", cluster.at("server"));
  if (server.starts_with("https://") || server.starts_with("http://")) return {};
  return fail(ErrorCode::invalid_argument, "{}: must begin with https:// or http://, not \"{}\"", cluster.at("server"), server);
}

Result<> read_cluster(const Node& cluster, const std::string& folder, RestConfig& out) {
  FL_TRY(out.server, cluster.text("server"));
  FL_CHECK(check_server(cluster, out.server));
  while (out.server.ends_with('/')) out.server.pop_back();
  FL_TRY(out.ca_pem, pem(cluster, "certificate-authority", folder, out.ca_file));
  FL_TRY(out.tls_server_name, cluster.text("tls-server-name"));
  FL_TRY(out.insecure_skip_tls_verify, cluster.flag("insecure-skip-tls-verify"));
  if (out.insecure_skip_tls_verify && !out.ca_pem.empty()) {
    return fail(ErrorCode::invalid_argument, "{}: cannot be true together with a certificate authority",
                cluster.at("insecure-skip-tls-verify"));
  }
  return cluster.refuse("proxy-url", "proxies are not supported");
}

Result<> read_user(const Node& user, const std::string& folder, RestConfig& out) {
  FL_CHECK(user.refuse("exec", "credential plugins are not run; use a client certificate, a token or tokenFile"));
  FL_CHECK(user.refuse("auth-provider", "credential plugins are not run; use a client certificate, a token or tokenFile"));
  FL_CHECK(user.refuse("username", "passwords are not supported; use a client certificate, a token or tokenFile"));
  FL_CHECK(user.refuse("password", "passwords are not supported; use a client certificate, a token or tokenFile"));
  for (const auto field : {"as", "as-uid", "as-groups", "as-user-extra"})
    FL_CHECK(user.refuse(field, "impersonation is not supported"));
  FL_TRY(out.certificate_pem, pem(user, "client-certificate", folder, out.certificate_file));
  FL_TRY(out.key_pem, pem(user, "client-key", folder, out.key_file));
  if (out.certificate_pem.empty() != out.key_pem.empty()) {
    const std::string_view missing = out.key_pem.empty() ? "client-key" : "client-certificate";
    return fail(ErrorCode::invalid_argument, "{}: a client certificate and its key must be given together", user.at(missing));
  }
  FL_TRY(out.token, user.text("token"));
  FL_TRY(out.token_file, user.text("tokenFile"));
  if (!out.token_file.empty()) out.token_file = resolve(folder, out.token_file);
  return {};
}

Result<std::string> choose_context(const json::object& root, const std::string& asked) {
  if (!asked.empty()) return asked;
  FL_TRY(auto current, (Node{&root, ""}.text("current-context")));
  if (!current.empty()) return current;
  const auto* contexts = root.if_contains("contexts");
  if (contexts && contexts->is_array() && contexts->get_array().size() == 1 && contexts->get_array()[0].is_object()) {
    return Node{&contexts->get_array()[0].get_object(), "contexts[0]"}.text("name");
  }
  return fail(ErrorCode::invalid_argument, "current-context: not set, and no context was asked for");
}

}  // namespace

Result<RestConfig> parse_kubeconfig(std::string_view text, const std::string& folder, const std::string& context) {
  FL_TRY(const auto documents, parse_yaml(text));
  if (documents.size() != 1 || !documents[0].is_object()) return fail(ErrorCode::invalid_argument, "must be one YAML object");
  const json::object& root = documents[0].get_object();
  FL_TRY(const auto kind, (Node{&root, ""}.text("kind")));
  if (!kind.empty() && kind != "Config") return fail(ErrorCode::invalid_argument, "kind: must be \"Config\", not \"{}\"", kind);
  FL_TRY(const auto chosen, choose_context(root, context));
  FL_TRY(const auto ctx, find_named(root, "contexts", "context", chosen));
  RestConfig out;
  FL_TRY(const auto cluster_name, ctx.text("cluster"));
  FL_TRY_CTX(const auto cluster, find_named(root, "clusters", "cluster", cluster_name), "{}", ctx.at("cluster"));
  FL_CHECK(read_cluster(cluster, folder, out));
  FL_TRY(const auto user_name, ctx.text("user"));
  if (!user_name.empty()) {
    FL_TRY_CTX(const auto user, find_named(root, "users", "user", user_name), "{}", ctx.at("user"));
    FL_CHECK(read_user(user, folder, out));
  }
  FL_TRY(auto ns, ctx.text("namespace"));
  if (!ns.empty()) out.ns = std::move(ns);
  return out;
}

Result<RestConfig> load_kubeconfig(const std::string& path, const std::string& context) {
  FL_TRY_CTX(const auto text, read_file(path), "read kubeconfig");
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash);
  FL_TRY_CTX(auto config, parse_kubeconfig(text, folder, context), "kubeconfig {}", path);
  return config;
}

Result<RestConfig> in_cluster_config(const std::string& folder) {
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (!host || !*host || !port || !*port) {
    return fail(ErrorCode::failed_precondition,
                "not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; give a kubeconfig instead");
  }
  RestConfig out;
  const std::string_view h = host;
  out.server =
      h.find(':') == std::string_view::npos ? fmt::format("https://{}:{}", h, port) : fmt::format("https://[{}]:{}", h, port);
  out.token_file = folder + "/token";
  FL_TRY_CTX(out.token, read_file(out.token_file), "service account token");
  out.ca_file = folder + "/ca.crt";
  FL_TRY_CTX(out.ca_pem, read_file(out.ca_file), "service account certificate authority");
  if (auto ns = read_file(folder + "/namespace"); ns && !ns->empty()) out.ns = std::move(*ns);
  while (out.ns.ends_with('\n')) out.ns.pop_back();
  while (out.token.ends_with('\n')) out.token.pop_back();
  return out;
}

std::string write_kubeconfig(const RestConfig& c, const std::string& cluster_name, const std::string& user_name) {
  json::object cluster = {{"server", c.server}};
  if (!c.ca_pem.empty()) cluster["certificate-authority-data"] = to_base64(c.ca_pem);
  if (!c.tls_server_name.empty()) cluster["tls-server-name"] = c.tls_server_name;
  if (c.insecure_skip_tls_verify) cluster["insecure-skip-tls-verify"] = true;
  json::object user;
  if (!c.certificate_pem.empty()) user["client-certificate-data"] = to_base64(c.certificate_pem);
  if (!c.key_pem.empty()) user["client-key-data"] = to_base64(c.key_pem);
  if (!c.token.empty()) user["token"] = c.token;
  if (!c.token_file.empty()) user["tokenFile"] = c.token_file;
  json::object context = {{"cluster", cluster_name}, {"user", user_name}};
  if (c.ns != "default" && !c.ns.empty()) context["namespace"] = c.ns;
  const std::string context_name = fmt::format("{}@{}", user_name, cluster_name);
  const auto named = [](std::string_view name, std::string_view member, json::object body) {
    return json::array{json::object{{"name", name}, {member, std::move(body)}}};
  };
  return to_yaml(json::object{{"apiVersion", "v1"},
                              {"kind", "Config"},
                              {"current-context", context_name},
                              {"clusters", named(cluster_name, "cluster", std::move(cluster))},
                              {"users", named(user_name, "user", std::move(user))},
                              {"contexts", named(context_name, "context", std::move(context))}});
}

}  // namespace fairlead::kube
