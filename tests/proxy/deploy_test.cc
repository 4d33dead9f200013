// The files in deploy/proxy: they are what they say they are, they fit together, and the proxy accepts its own flags and
// configuration. systemd's own checker is asked where it is installed.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <boost/json/serialize.hpp>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/files.h"
#include "base/process.h"
#include "kube/codec.h"
#include "kube/kinds.h"
#include "kube/kubeconfig.h"
#include "proxy/config.h"

namespace fairlead::proxy {
namespace {

namespace json = boost::json;
const std::string kFolder = "deploy/proxy/";

std::vector<json::object> documents(const std::string& file) {
  std::vector<json::object> out;
  const auto text = read_file(kFolder + file);
  EXPECT_TRUE(text) << text.error().message;
  if (!text) return out;
  std::vector<std::string> strict;
  const auto all = kube::parse_yaml(*text, {.strict = &strict});
  EXPECT_TRUE(all) << file << ": " << (all ? "" : all.error().message);
  for (const auto& s : strict) ADD_FAILURE() << file << ": " << s;
  if (!all) return out;
  for (const auto& d : *all) out.push_back(d.as_object());
  return out;
}

// "spec.template.spec.containers.0.command"
const json::value& at(const json::value& v, const std::string& path) {
  boost::system::error_code ec;
  std::string pointer = "/" + path;
  std::replace(pointer.begin() + 1, pointer.end(), '.', '/');
  const auto* found = v.find_pointer(pointer, ec);
  static const json::value none;
  EXPECT_TRUE(found) << path;
  return found ? *found : none;
}
std::string text(const json::value& v) { return v.is_string() ? std::string(v.as_string()) : json::serialize(v); }

json::value find(const std::string& file, const std::string& kind, std::size_t n = 0) {
  for (const auto& d : documents(file))
    if (d.at("kind").as_string() == kind && n-- == 0) return d;
  ADD_FAILURE() << file << " has no such " << kind;
  return json::object();
}

// Checks every object against the schema, with unknown fields as errors, where the kind is one that we know.
TEST(Deploy, ManifestsAreValidObjects) {
  std::size_t known = 0;
  for (const std::string file : {"rbac.yaml", "config.yaml", "daemonset.yaml"})
    for (const auto& d : documents(file)) {
      ASSERT_TRUE(d.contains("apiVersion") && d.contains("kind")) << file;
      const auto* kind = kube::find_kind(text(d.at("apiVersion")), text(d.at("kind")));
      if (!kind) continue;
      ++known;
      std::vector<std::string> strict;
      const std::unique_ptr<kube::Message> m(kind->prototype->New());
      const auto read = kube::from_json_value(d, *m, {.strict = &strict});
      EXPECT_TRUE(read) << file << ": " << (read ? "" : read.error().message);
      for (const auto& s : strict) ADD_FAILURE() << file << " " << text(d.at("kind")) << ": " << s;
    }
  EXPECT_GE(known, 3u) << "too few of the kinds are known to be checked";
}

TEST(Deploy, TheProxyAcceptsItsConfigurationAndFlags) {
  const auto map = find("config.yaml", "ConfigMap");
  Config c;
  std::vector<std::string> notes;
  const auto read = read_config(text(map.at("data").at("config.yaml")), c, notes);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(notes.empty()) << notes[0];
  EXPECT_TRUE(validate(c)) << validate(c).error().message;
  EXPECT_EQ(c.mode, "nftables");

  const auto set = find("daemonset.yaml", "DaemonSet");
  for (const std::string container : {"initContainers.0", "containers.0"}) {
    const auto& command = at(set, "spec.template.spec." + container + ".command").as_array();
    ASSERT_GE(command.size(), 3u);
    EXPECT_EQ(command[0].as_string(), "/usr/bin/fairlead");
    EXPECT_EQ(command[1].as_string(), "proxy");
    std::vector<std::string> flags;
    for (std::size_t i = 2; i < command.size(); ++i) flags.push_back(text(command[i]));
    Config flagged;
    CLI::App app;
    add_flags(app, flagged);
    EXPECT_NO_THROW(app.parse(for_parsing(flags))) << container;
    EXPECT_EQ(flagged.config_file, "/etc/fairlead/proxy/config.yaml");
    EXPECT_EQ(flagged.init_only, container == "initContainers.0");
  }
}

TEST(Deploy, TheFilesFitTogether) {
  const auto account = find("rbac.yaml", "ServiceAccount"), role = find("rbac.yaml", "ClusterRole"), binding = find("rbac.yaml", "ClusterRoleBinding"),
             set = find("daemonset.yaml", "DaemonSet"), config = find("config.yaml", "ConfigMap"), api = find("config.yaml", "ConfigMap", 1);
  EXPECT_EQ(at(set, "spec.template.spec.serviceAccountName"), at(account, "metadata.name"));
  EXPECT_EQ(at(binding, "subjects.0.name"), at(account, "metadata.name"));
  EXPECT_EQ(at(binding, "subjects.0.namespace"), at(account, "metadata.namespace"));
  EXPECT_EQ(at(binding, "roleRef.name"), at(role, "metadata.name"));
  EXPECT_EQ(at(set, "metadata.namespace"), at(account, "metadata.namespace"));
  EXPECT_EQ(at(set, "spec.selector.matchLabels"), at(set, "spec.template.metadata.labels"));
  EXPECT_TRUE(at(set, "spec.template.spec.hostNetwork").as_bool());
  EXPECT_EQ(at(set, "spec.template.spec.volumes.0.configMap.name"), at(config, "metadata.name"));
  EXPECT_EQ(at(set, "spec.template.spec.volumes.1.configMap.name"), at(api, "metadata.name"));

  // All that the proxy watches, and Events.
  std::set<std::string> may;
  for (const auto& rule : at(role, "rules").as_array())
    for (const auto& group : rule.at("apiGroups").as_array())
      for (const auto& resource : rule.at("resources").as_array())
        for (const auto& verb : rule.at("verbs").as_array()) may.insert(text(group) + "/" + text(resource) + " " + text(verb));
  for (const std::string resource : {"/services", "/nodes", "discovery.k8s.io/endpointslices", "networking.k8s.io/servicecidrs"})
    for (const std::string verb : {"get", "list", "watch"}) EXPECT_TRUE(may.contains(resource + " " + verb)) << verb << " " << resource;
  for (const std::string verb : {"create", "patch", "update"}) EXPECT_TRUE(may.contains("/events " + verb)) << verb;

  // The kubeconfig is where the configuration says.
  Config c;
  std::vector<std::string> notes;
  ASSERT_TRUE(read_config(text(config.at("data").at("config.yaml")), c, notes));
  const std::string mount = text(at(set, "spec.template.spec.containers.0.volumeMounts.1.mountPath"));
  EXPECT_EQ(c.kubeconfig, mount + "/kubeconfig");
  EXPECT_TRUE(api.at("data").as_object().contains("kubeconfig"));
  // The probes ask the port that the configuration opens.
  EXPECT_EQ(c.healthz_bind_address, "0.0.0.0:10256");
  EXPECT_EQ(at(set, "spec.template.spec.containers.0.livenessProbe.httpGet.port"), 10256);
}

TEST(Deploy, TheSystemdUnitIsAccepted) {
  const auto unit = read_file(kFolder + "fairlead-proxy.service");
  ASSERT_TRUE(unit) << unit.error().message;
  for (const std::string line : {"Type=notify", "Restart=always", "ExecStart=/usr/bin/fairlead proxy --config="})
    EXPECT_NE(unit->find("\n" + line), std::string::npos) << line;
  const std::string tool = "/usr/bin/systemd-analyze";
  if (!std::filesystem::exists(tool)) GTEST_SKIP() << tool << " is not installed";
  const char* bin = std::getenv("FAIRLEAD_BIN");
  ASSERT_TRUE(bin) << "run it through ctest";
  char folder[] = "/tmp/fairlead-unit-XXXXXX";
  ASSERT_TRUE(::mkdtemp(folder));
  const std::string copy = std::string(folder) + "/fairlead-proxy.service", installed = "/usr/bin/fairlead ";
  std::string local = *unit;
  local.replace(local.find(installed), installed.size(), std::string(bin) + "/fairlead ");
  std::ofstream(copy) << local;
  const auto done = run_command({.argv = {tool, "verify", copy}});
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(done->status.ok()) << done->stdout_text << done->stderr_text;
  EXPECT_EQ(done->stderr_text.find("fairlead-proxy.service"), std::string::npos) << done->stderr_text;
}

}  // namespace
}  // namespace fairlead::proxy
