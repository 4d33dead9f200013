// The configuration: every flag of kube-proxy, every field of KubeProxyConfiguration, and what is said about bad ones.
#include "proxy/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/duration.h"
#include "proxy/config_watch.h"

namespace fairlead::proxy {
namespace {

namespace json = boost::json;

// The value at "conntrack.min" of the configuration, as JSON text.
std::string at(const Config& c, const std::string& path) {
  json::value v = config_as_json(c);
  for (std::size_t i = 0; i < path.size();) {
    const auto end = std::min(path.find('.', i), path.size());
    const auto* next = v.as_object().if_contains(path.substr(i, end - i));
    if (!next) return "(missing)";
    json::value inner = *next;
    v = std::move(inner);
    i = end + 1;
  }
  return json::serialize(v);
}

Result<Config> from_flags(const std::vector<std::string>& flags) {
  Config c;
  CLI::App app;
  add_flags(app, c);
  try {
    app.parse(for_parsing(flags));
  } catch (const CLI::ParseError& e) {
    return fail(ErrorCode::invalid_argument, "{}", e.what());
  }
  std::vector<std::string> notes;
  FL_CHECK(finish_config(c, notes));
  return c;
}

TEST(Config, EveryFlagLandsInItsField) {
  struct Row {
    std::string flag, path, value;
  };
  const std::vector<Row> rows{
      {"--kubeconfig=/etc/kube.conf", "clientConnection.kubeconfig", "\"/etc/kube.conf\""},
      {"--kube-api-content-type=application/json", "clientConnection.contentType", "\"application/json\""},
      {"--kube-api-burst=30", "clientConnection.burst", "30"},
      {"--kube-api-qps=15", "clientConnection.qps", "1.5E1"},
      {"--hostname-override=n1", "hostnameOverride", "\"n1\""},
      {"--bind-address=192.0.2.1", "bindAddress", "\"192.0.2.1\""},
      {"--healthz-bind-address=127.0.0.1:9", "healthzBindAddress", "\"127.0.0.1:9\""},
      {"--healthz-bind-address=127.0.0.1", "healthzBindAddress", "\"127.0.0.1:10256\""},
      {"--healthz-port=99", "healthzBindAddress", "\"0.0.0.0:99\""},
      {"--healthz-port=0", "healthzBindAddress", "\"\""},
      {"--metrics-bind-address=[::1]:8", "metricsBindAddress", "\"[::1]:8\""},
      {"--metrics-bind-address=::1", "metricsBindAddress", "\"[::1]:10249\""},
      {"--metrics-port=98", "metricsBindAddress", "\"127.0.0.1:98\""},
      {"--bind-address=::", "metricsBindAddress", "\"[::1]:10249\""},
      {"--bind-address=::", "healthzBindAddress", "\"[::]:10256\""},
      {"--bind-address-hard-fail", "bindAddressHardFail", "true"},
      {"--profiling", "enableProfiling", "true"},
      {"--show-hidden-metrics-for-version=1.35", "showHiddenMetricsForVersion", "\"1.35\""},
      {"--proxy-mode=iptables", "mode", "\"iptables\""},
      {"--iptables-masquerade-bit=13", "iptables.masqueradeBit", "13"},
      {"--iptables-masquerade-bit=13", "nftables.masqueradeBit", "13"},
      {"--masquerade-all", "iptables.masqueradeAll", "true"},
      {"--masquerade-all=true", "nftables.masqueradeAll", "true"},
      {"--masquerade-all=false", "nftables.masqueradeAll", "false"},
      {"--iptables-localhost-nodeports=false", "iptables.localhostNodePorts", "false"},
      {"--iptables-sync-period=45s", "iptables.syncPeriod", "\"45s\""},
      {"--iptables-sync-period=45s", "nftables.syncPeriod", "\"45s\""},
      {"--iptables-min-sync-period=2s", "nftables.minSyncPeriod", "\"2s\""},
      {"--ipvs-sync-period=40s", "ipvs.syncPeriod", "\"40s\""},
      {"--ipvs-min-sync-period=3s", "ipvs.minSyncPeriod", "\"3s\""},
      {"--ipvs-scheduler=lc", "ipvs.scheduler", "\"lc\""},
      {"--ipvs-exclude-cidrs=10.0.0.0/8,192.0.2.0/24", "ipvs.excludeCIDRs", "[\"10.0.0.0/8\",\"192.0.2.0/24\"]"},
      {"--ipvs-strict-arp", "ipvs.strictARP", "true"},
      {"--ipvs-tcp-timeout=10m", "ipvs.tcpTimeout", "\"10m0s\""},
      {"--ipvs-tcpfin-timeout=20s", "ipvs.tcpFinTimeout", "\"20s\""},
      {"--ipvs-udp-timeout=30s", "ipvs.udpTimeout", "\"30s\""},
      {"--detect-local-mode=NodeCIDR", "detectLocalMode", "\"NodeCIDR\""},
      {"--pod-bridge-interface=cbr0", "detectLocal.bridgeInterface", "\"cbr0\""},
      {"--pod-interface-name-prefix=veth", "detectLocal.interfaceNamePrefix", "\"veth\""},
      {"--cluster-cidr=10.244.0.0/16,fd44::/48", "clusterCIDR", "\"10.244.0.0/16,fd44::/48\""},
      {"--nodeport-addresses=10.0.0.0/8,192.0.2.0/24", "nodePortAddresses", "[\"10.0.0.0/8\",\"192.0.2.0/24\"]"},
      {"--nodeport-addresses=primary", "nodePortAddresses", "[\"primary\"]"},
      {"--oom-score-adj=-500", "oomScoreAdj", "-500"},
      {"--conntrack-max-per-core=1000", "conntrack.maxPerCore", "1000"},
      {"--conntrack-min=2000", "conntrack.min", "2000"},
      {"--conntrack-tcp-timeout-established=12h", "conntrack.tcpEstablishedTimeout", "\"12h0m0s\""},
      {"--conntrack-tcp-timeout-close-wait=30m", "conntrack.tcpCloseWaitTimeout", "\"30m0s\""},
      {"--conntrack-tcp-be-liberal", "conntrack.tcpBeLiberal", "true"},
      {"--conntrack-udp-timeout=10s", "conntrack.udpTimeout", "\"10s\""},
      {"--conntrack-udp-timeout-stream=1m30s", "conntrack.udpStreamTimeout", "\"1m30s\""},
      {"--config-sync-period=5m", "configSyncPeriod", "\"5m0s\""},
      {"--feature-gates=A=true,B=false", "featureGates", R"({"A":true,"B":false})"},
      {"--delete-stale-flows=UDP,TCP", "fairlead.deleteStaleFlows", R"(["UDP","TCP"])"},
      {"--flow-accounting", "fairlead.flowAccounting", "true"},
  };
  for (const auto& row : rows) {
    const auto c = from_flags({row.flag});
    ASSERT_TRUE(c) << row.flag << ": " << c.error().message;
    EXPECT_EQ(at(*c, row.path), row.value) << row.flag;
  }
  const auto several = from_flags({"--master=https://192.0.2.9:6443", "--config-sync-period=1m", "--cleanup", "--init-only",
                                   "--write-config-to=/tmp/x", "-v=5"});
  ASSERT_TRUE(several) << several.error().message;
  EXPECT_EQ(several->master, "https://192.0.2.9:6443");
  EXPECT_TRUE(several->cleanup && several->init_only);
  EXPECT_EQ(several->write_config_to, "/tmp/x");
  EXPECT_EQ(several->log_level, "debug");
  EXPECT_EQ(from_flags({"-v=2"})->log_level, "info");
  EXPECT_EQ(from_flags({"--v=2"})->log_level, "info");
}

// Every flag of kube-proxy 1.36 on Linux, with a value that it takes.
TEST(Config, EveryFlagOfKubeProxyIsAccepted) {
  const std::string all = R"(
    --bind-address=0.0.0.0 --bind-address-hard-fail --cleanup --cluster-cidr=10.0.0.0/8 --config-sync-period=15m
    --conntrack-max-per-core=32768 --conntrack-min=131072 --conntrack-tcp-be-liberal --conntrack-tcp-timeout-close-wait=1h
    --conntrack-tcp-timeout-established=24h --conntrack-udp-timeout=30s --conntrack-udp-timeout-stream=2m --detect-local-mode=ClusterCIDR
    --feature-gates=AllowServiceExternalIPs=true --healthz-bind-address=0.0.0.0:10256 --healthz-port=10256 --hostname-override=n
    --init-only --iptables-localhost-nodeports=true --iptables-masquerade-bit=14 --iptables-min-sync-period=1s --iptables-sync-period=30s
    --ipvs-exclude-cidrs=10.0.0.0/8 --ipvs-min-sync-period=1s --ipvs-scheduler=rr --ipvs-strict-arp --ipvs-sync-period=30s
    --ipvs-tcp-timeout=1m --ipvs-tcpfin-timeout=1m --ipvs-udp-timeout=1m --kube-api-burst=10 --kube-api-content-type=application/json
    --kube-api-qps=5 --kubeconfig=/k --log-flush-frequency=5s --log-json-info-buffer-size=0 --log-json-split-stream
    --log-text-info-buffer-size=0 --log-text-split-stream --logging-format=json --masquerade-all --master=https://192.0.2.1
    --metrics-bind-address=127.0.0.1:10249 --metrics-port=10249 --nodeport-addresses=10.0.0.0/8 --oom-score-adj=-999
    --pod-bridge-interface=cbr0 --pod-interface-name-prefix=veth --profiling --proxy-mode=iptables --show-hidden-metrics-for-version=1.35
    --v=2 -v=2 --vmodule=proxier=4 --write-config-to=/w)";
  std::istringstream in(all);
  std::size_t n = 0;
  for (std::string flag; in >> flag; ++n) EXPECT_TRUE(from_flags({flag})) << flag;
  EXPECT_EQ(n, 55u);
  EXPECT_FALSE(from_flags({"--logging-format=xml"}));
  EXPECT_FALSE(from_flags({"-v=loud"}));
}

// Every field of KubeProxyConfiguration v1alpha1 by its path: known (no note about it), and with the wrong type refused by that path.
TEST(Config, EveryFieldOfKubeProxyConfigurationIsKnown) {
  const std::string all = R"(featureGates clientConnection.kubeconfig clientConnection.acceptContentTypes clientConnection.contentType clientConnection.qps
    clientConnection.burst hostnameOverride bindAddress healthzBindAddress metricsBindAddress bindAddressHardFail enableProfiling
    showHiddenMetricsForVersion mode iptables.masqueradeBit iptables.masqueradeAll iptables.localhostNodePorts iptables.syncPeriod
    iptables.minSyncPeriod ipvs.syncPeriod ipvs.minSyncPeriod ipvs.scheduler ipvs.excludeCIDRs ipvs.strictARP ipvs.tcpTimeout ipvs.tcpFinTimeout
    ipvs.udpTimeout nftables.masqueradeBit nftables.masqueradeAll nftables.syncPeriod nftables.minSyncPeriod detectLocalMode
    detectLocal.bridgeInterface detectLocal.interfaceNamePrefix clusterCIDR nodePortAddresses oomScoreAdj conntrack.maxPerCore conntrack.min
    conntrack.tcpEstablishedTimeout conntrack.tcpCloseWaitTimeout conntrack.tcpBeLiberal conntrack.udpTimeout conntrack.udpStreamTimeout
    configSyncPeriod)";
  const std::string head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
  std::istringstream in(all);
  std::size_t n = 0;
  for (std::string path; in >> path; ++n) {
    const auto dot = path.find('.');
    const std::string wrong = "[[]]";
    const auto text = head + (dot == std::string::npos ? path + ": " + wrong : path.substr(0, dot) + ": {" + path.substr(dot + 1) + ": " + wrong + "}") + "\n";
    Config c;
    std::vector<std::string> notes;
    const auto read = read_config(text, c, notes);
    EXPECT_TRUE(notes.empty()) << path << ": " << notes[0];
    ASSERT_FALSE(read) << path << " takes a list of lists";
    EXPECT_NE(read.error().message.find(path), std::string::npos) << read.error().message;
  }
  EXPECT_EQ(n, 45u);
  // Known, and without effect here.
  for (const std::string text : {"logging: {format: text, verbosity: 2}", "winkernel: {networkName: n, sourceVip: 192.0.2.1, enableDSR: true}", "portRange: 1-2",
                                 "windowsRunAsService: true"}) {
    Config c;
    std::vector<std::string> notes;
    EXPECT_TRUE(read_config(head + text + "\n", c, notes)) << text;
    EXPECT_TRUE(notes.empty()) << text << ": " << notes[0];
  }
}

TEST(Config, AnEmptyAddressMeansNoServer) {
  for (const auto& flags : {std::vector<std::string>{"--metrics-bind-address", ""}, {"--metrics-bind-address="}}) {
    const auto c = from_flags(flags);
    ASSERT_TRUE(c) << c.error().message;
    EXPECT_EQ(c->metrics_bind_address, "");
  }
}

TEST(Config, BadFlags) {
  struct Row {
    std::vector<std::string> flags;
    std::string says;
  };
  const std::vector<Row> rows{
      {{"--iptables-sync-period=soon"}, "soon"},
      {{"--iptables-masquerade-bit=32"}, "iptables.masqueradeBit"},
      {{"--iptables-sync-period=1s", "--iptables-min-sync-period=2s"}, "iptables.minSyncPeriod"},
      {{"--iptables-sync-period=0"}, "iptables.syncPeriod"},
      {{"--oom-score-adj=1001"}, "oomScoreAdj"},
      {{"--proxy-mode=userspace"}, "mode"},
      {{"--detect-local-mode=Guess"}, "detectLocalMode"},
      {{"--detect-local-mode=BridgeInterface"}, "detectLocal.bridgeInterface"},
      {{"--detect-local-mode=InterfaceNamePrefix"}, "detectLocal.interfaceNamePrefix"},
      {{"--cluster-cidr=10.0.0.0/33"}, "clusterCIDR"},
      {{"--cluster-cidr=10.0.0.0/8,11.0.0.0/8"}, "clusterCIDR"},
      {{"--nodeport-addresses=primary,10.0.0.0/8"}, "nodePortAddresses"},
      {{"--nodeport-addresses=everywhere"}, "nodePortAddresses"},
      {{"--bind-address=localhost"}, "bindAddress"},
      {{"--healthz-bind-address=nowhere:1"}, "healthzBindAddress"},
      {{"--metrics-bind-address=127.0.0.1:99999"}, "metricsBindAddress"},
      {{"--metrics-port=70000"}, "metrics-port"},
      {{"--conntrack-min=-1"}, "conntrack.min"},
      {{"--conntrack-max-per-core=-1"}, "conntrack.maxPerCore"},
      {{"--ipvs-exclude-cidrs=x"}, "ipvs.excludeCIDRs"},
      {{"--feature-gates=A"}, "feature-gates"},
      {{"--delete-stale-flows=ICMP"}, "deleteStaleFlows"},
      {{"--no-such-flag"}, "no-such-flag"},
      {{"--config=/nonexistent/config.yaml"}, "--config"},
  };
  for (const auto& row : rows) {
    const auto c = from_flags(row.flags);
    ASSERT_FALSE(c) << row.flags[0];
    EXPECT_NE(c.error().message.find(row.says), std::string::npos) << row.flags[0] << ": " << c.error().message;
  }
}

// What kubeadm writes, and every other field of v1alpha1.
constexpr std::string_view kFull = R"(apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
featureGates:
  AllowServiceExternalIPs: false
clientConnection:
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  acceptContentTypes: application/json
  contentType: application/json
  qps: 7.5
  burst: 20
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
  verbosity: 0
hostnameOverride: worker-1
bindAddress: 192.0.2.7
healthzBindAddress: 192.0.2.7:1
metricsBindAddress: 192.0.2.7:2
bindAddressHardFail: true
enableProfiling: true
showHiddenMetricsForVersion: "1.35"
mode: nftables
iptables:
  masqueradeBit: 10
  masqueradeAll: true
  localhostNodePorts: false
  syncPeriod: 31s
  minSyncPeriod: 2s
nftables:
  masqueradeBit: 11
  masqueradeAll: true
  syncPeriod: 32s
  minSyncPeriod: 3s
ipvs:
  syncPeriod: 33s
  minSyncPeriod: 4s
  scheduler: wrr
  excludeCIDRs: [10.0.0.0/8]
  strictARP: true
  tcpTimeout: 1m0s
  tcpFinTimeout: 2m0s
  udpTimeout: 3m0s
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
detectLocalMode: InterfaceNamePrefix
detectLocal:
  bridgeInterface: br0
  interfaceNamePrefix: veth
clusterCIDR: 10.244.0.0/16
nodePortAddresses: [primary]
oomScoreAdj: -998
conntrack:
  maxPerCore: 1
  min: 2
  tcpEstablishedTimeout: 1h0m0s
  tcpCloseWaitTimeout: 2h0m0s
  tcpBeLiberal: true
  udpTimeout: 4s
  udpStreamTimeout: 5s
configSyncPeriod: 16m0s
portRange: ""
windowsRunAsService: false
fairlead:
  deleteStaleFlows: [UDP, SCTP]
  flowAccounting: true
)";

TEST(Config, EveryFieldOfTheFileIsReadAndWrittenBack) {
  Config c;
  std::vector<std::string> notes;
  const auto read = read_config(kFull, c, notes);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(notes.empty()) << notes[0];
  ASSERT_TRUE(validate(c)) << validate(c).error().message;
  // No field has its default in this file, so whatever is not read differs from what is written.
  const auto before = config_as_json(Config{});
  const auto after = config_as_json(c);
  const std::function<void(const json::object&, const json::object&, const std::string&)> differ =
      [&](const json::object& a, const json::object& b, const std::string& path) {
        for (const auto& [key, value] : a) {
          const auto name = path + std::string(key);
          if (name == "apiVersion" || name == "kind") continue;
          ASSERT_TRUE(b.contains(key)) << name;
          if (value.is_object() && name != "featureGates") differ(value.as_object(), b.at(key).as_object(), name + ".");
          else EXPECT_NE(json::serialize(value), json::serialize(b.at(key))) << name << " was not read";
        }
      };
  differ(before, after, "");
  Config again;
  const auto written = read_config(write_config(c), again, notes);
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_TRUE(notes.empty());
  EXPECT_EQ(json::serialize(config_as_json(again)), json::serialize(after));
}

TEST(Config, DefaultsAreThoseOfKubeProxy) {
  const auto c = from_flags({});
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(at(*c, "healthzBindAddress"), "\"0.0.0.0:10256\"");
  EXPECT_EQ(at(*c, "metricsBindAddress"), "\"127.0.0.1:10249\"");
  EXPECT_EQ(at(*c, "iptables.masqueradeBit"), "14");
  EXPECT_EQ(at(*c, "iptables.localhostNodePorts"), "true");
  EXPECT_EQ(at(*c, "nftables.syncPeriod"), "\"30s\"");
  EXPECT_EQ(at(*c, "conntrack.maxPerCore"), "32768");
  EXPECT_EQ(at(*c, "conntrack.min"), "131072");
  EXPECT_EQ(at(*c, "conntrack.tcpEstablishedTimeout"), "\"24h0m0s\"");
  EXPECT_EQ(at(*c, "conntrack.tcpCloseWaitTimeout"), "\"1h0m0s\"");
  EXPECT_EQ(at(*c, "oomScoreAdj"), "-999");
  EXPECT_EQ(at(*c, "configSyncPeriod"), "\"15m0s\"");
  EXPECT_EQ(at(*c, "clientConnection.burst"), "10");
}

TEST(Config, BadAndUnknownFieldsAreNamed) {
  struct Row {
    std::string field, error, note;
  };
  const std::vector<Row> rows{
      {"bogus: 1", "", "bogus"},
      {"iptables: {bogus: 1}", "", "iptables.bogus"},
      {"mode: 7", "mode", ""},
      {"iptables: 7", "iptables", ""},
      {"iptables: {masqueradeBit: x}", "iptables.masqueradeBit", ""},
      {"iptables: {masqueradeBit: 4294967310}", "iptables.masqueradeBit", ""},
      {"iptables: {masqueradeAll: 1}", "iptables.masqueradeAll", ""},
      {"iptables: {syncPeriod: 30}", "iptables.syncPeriod", ""},
      {"iptables: {syncPeriod: 30 s}", "iptables.syncPeriod", ""},
      {"nodePortAddresses: 10.0.0.0/8", "nodePortAddresses", ""},
      {"nodePortAddresses: [1]", "nodePortAddresses", ""},
      {"featureGates: {A: x}", "featureGates", ""},
      {"featureGates: []", "featureGates", ""},
      {"mode: nftables\nmode: iptables", "", "mode"},  // twice: the YAML reader says so
      {"fairlead: {deleteStaleFlows: UDP}", "fairlead.deleteStaleFlows", ""},
      {"iptables: null", "", ""},
  };
  for (const auto& row : rows) {
    Config c;
    std::vector<std::string> notes;
    const auto read = read_config("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n" + row.field + "\n", c, notes);
    EXPECT_EQ(read.has_value(), row.error.empty()) << row.field;
    if (!read) {
      EXPECT_NE(read.error().message.find(row.error + ":"), std::string::npos) << row.field << " -> " << read.error().message;
    }
    ASSERT_EQ(notes.empty(), row.note.empty()) << row.field;
    if (!notes.empty()) {
      EXPECT_NE(notes[0].find(row.note), std::string::npos) << notes[0];
    }
  }
  for (const std::string_view text : {"", "kind: Pod\napiVersion: v1\n", "[]", "a: [", "kind: KubeProxyConfiguration\n",
                                      "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1beta1\n"}) {
    Config c;
    std::vector<std::string> notes;
    EXPECT_FALSE(read_config(text, c, notes)) << text;
  }
}

TEST(Config, Durations) {
  using namespace std::chrono_literals;
  const std::vector<std::pair<std::string, nanoseconds>> good{{"0", 0s},     {"0s", 0s},        {"1h30m", 90min},  {"500ms", 500ms},
                                                              {"1.5s", 1500ms}, {"2us", 2us},   {"2µs", 2us},      {"3ns", 3ns},
                                                              {"-1s", -1s},  {"24h0m0s", 24h}, {"1h0m0.5s", 3600500ms}};
  for (const auto& [text, want] : good) {
    const auto d = parse_duration(text);
    ASSERT_TRUE(d) << text;
    EXPECT_EQ(*d, want) << text;
    EXPECT_EQ(*parse_duration(format_duration(want)), want) << format_duration(want);
  }
  for (const std::string_view text : {"", "1", "s", "1x", "1s1", "-", "1e3s", "99999999999h", " 1s", "1 s", "nan", "inf"})
    EXPECT_FALSE(parse_duration(text)) << text;
}

class ConfigFile : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/fairlead-config-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  static std::string text(const std::string& mode) {
    return "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: " + mode + "\n";
  }
  void write(const std::string& name, const std::string& content) {
    std::ofstream(folder + "/" + name) << content;
  }
  // Runs until the watch has looked a few times more, or has called.
  void look(boost::asio::io_context& io, const bool& called) {
    for (int i = 0; i < 10 && !called; ++i) {
      io.restart();
      io.run_for(std::chrono::milliseconds(5));
    }
  }
  std::string folder;
};

TEST_F(ConfigFile, OfTheFlagsOnlyTheNameCountsBesideAFile) {
  write("c.yaml", text("iptables"));
  const auto c = from_flags({"--config=" + folder + "/c.yaml", "--proxy-mode=ipvs", "--oom-score-adj=1", "--hostname-override=n7",
                             "--healthz-port=1"});
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->mode, "iptables");
  EXPECT_EQ(c->oom_score_adj, -999);
  EXPECT_EQ(c->hostname_override, "n7");
  EXPECT_EQ(c->healthz_bind_address, "0.0.0.0:10256");
}

TEST_F(ConfigFile, AChangeIsNoticedAlsoThroughLinks) {
  // As the kubelet mounts a ConfigMap: config.yaml -> ..data/config.yaml, ..data -> a folder that is exchanged.
  std::filesystem::create_directory(folder + "/1");
  std::filesystem::create_directory(folder + "/2");
  write("1/config.yaml", text("nftables"));
  write("2/config.yaml", text("iptables"));
  std::filesystem::create_directory_symlink("1", folder + "/..data");
  std::filesystem::create_symlink("..data/config.yaml", folder + "/config.yaml");
  boost::asio::io_context io;
  bool called = false;
  ConfigWatch watch(io.get_executor(), folder + "/config.yaml", [&](const std::string&) { called = true; }, std::chrono::milliseconds(1));
  look(io, called);
  EXPECT_FALSE(called);
  std::filesystem::create_directory_symlink("2", folder + "/..next");
  std::filesystem::rename(folder + "/..next", folder + "/..data");
  while (!called) look(io, called);
}

TEST_F(ConfigFile, WhatIsNotValidAndWhatSaysTheSameChangesNothing) {
  write("c.yaml", text("nftables"));
  boost::asio::io_context io;
  bool called = false;
  ConfigWatch watch(io.get_executor(), folder + "/c.yaml", [&](const std::string&) { called = true; }, std::chrono::milliseconds(1));
  for (const auto& content : {text("nonsense"), std::string("{"), text("nonsense")}) {
    write("next", content);
    std::filesystem::rename(folder + "/next", folder + "/c.yaml");
    look(io, called);
    EXPECT_FALSE(called) << content;
  }
  std::filesystem::remove(folder + "/c.yaml");
  look(io, called);
  EXPECT_FALSE(called);
  write("c.yaml", text("ipvs"));
  while (!called) look(io, called);
}

}  // namespace
}  // namespace fairlead::proxy
