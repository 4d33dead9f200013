#!/usr/bin/env bash
# Drives the proxy's commands as a user does, in a network namespace that the caller made: an API server, the proxy by the name
# kube-proxy with a configuration file, connections through it, and every command that looks. Usage: command_test.sh BIN FOLDER
set -euo pipefail
bin=$1 dir=$2
cd "$dir"
pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; wait' EXIT

fail() { echo "FAILED: $*"; for f in *.log; do echo "--- $f"; tail -20 "$f"; done; exit 1; }
# Tries a command until it works; the limit is for machines that are very busy.
until_ok() { for _ in $(seq 600); do if "$@" >last.log 2>&1; then return 0; fi; sleep 0.1; done; fail "$*"; }
# says TEXT COMMAND...: it succeeds and prints the text
says() { local want=$1; shift; local out; out=$("$@" 2>&1) || fail "$* ended with $?: $out"; [[ $out == *"$want"* ]] || fail "$*: no \"$want\" in: $out"; }
code() { local want=$1; shift; local got=0; "$@" >last.log 2>&1 || got=$?; [[ $got == "$want" ]] || fail "$*: exit code $got, not $want: $(cat last.log)"; }

ip link set lo up
ip addr add 192.168.7.1/24 dev lo; ip addr add 10.244.0.2/32 dev lo; ip addr add 10.244.0.3/32 dev lo
ip route add 10.96.0.0/16 dev lo

# ---- an API server with a few objects
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 2>/dev/null
echo 'secret,admin,1,"system:masters"' > tokens
"$bin/fairlead" apiserver --bind-address 127.0.0.1 --data-dir "$dir/data" --tls-cert-file cert.pem --tls-private-key-file key.pem \
  --token-auth-file tokens >api.log 2>&1 &
pids+=($!)
api() { curl -sS --fail-with-body --max-time 20 --cacert cert.pem -H 'Authorization: Bearer secret' -H "Content-Type: ${type:-application/yaml}" "$@"; }
url=https://127.0.0.1:6443
until_ok api $url/readyz
cat > node.yaml <<E
{apiVersion: v1, kind: Node, metadata: {name: n1}}
E
cat > service.yaml <<E
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default},
 spec: {clusterIP: 10.96.0.50, type: NodePort, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}}
E
cat > slice.yaml <<E
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}},
 addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.244.0.2], nodeName: n1}, {addresses: [10.244.0.3], nodeName: n1}]}
E
until_ok api -X POST --data-binary @node.yaml $url/api/v1/nodes
type=application/merge-patch+json api -X PATCH --data '{"status":{"addresses":[{"type":"InternalIP","address":"192.168.7.1"}]}}' $url/api/v1/nodes/n1/status >/dev/null
until_ok api -X POST --data-binary @service.yaml $url/api/v1/namespaces/default/services
api -X POST --data-binary @slice.yaml $url/apis/discovery.k8s.io/v1/namespaces/default/endpointslices >/dev/null

# ---- the proxy, as kube-proxy is started
cat > kubeconfig <<E
{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {certificate-authority: cert.pem, server: "$url"}}],
 contexts: [{name: c, context: {cluster: c, user: u}}], current-context: c, users: [{name: u, user: {token: secret}}]}
E
config() {
  cat > next.yaml <<E
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: 10.244.0.0/16
hostnameOverride: n1
oomScoreAdj: 0
conntrack: {maxPerCore: 0}
clientConnection: {kubeconfig: $dir/kubeconfig}
nodePortAddresses: [192.168.7.0/24]
fairlead: {flowAccounting: ${accounting:-true}}
$1
E
  mv next.yaml config.yaml
}
config 'noSuchField: 1'
ln -s "$bin/fairlead" kube-proxy
./kube-proxy --config config.yaml >proxy.log 2>&1 &
proxy=$!; pids+=($proxy)
until_ok curl -sf 127.0.0.1:10256/healthz
grep -q 'unknown field "noSuchField"' proxy.log || fail "an unknown field was not reported"
says '"nodeEligible":true' curl -s 127.0.0.1:10256/healthz
says '"healthy":true' curl -s 127.0.0.1:10256/livez
says nftables curl -s 127.0.0.1:10249/proxyMode
says '"hostnameOverride":"n1"' curl -s 127.0.0.1:10249/configz
says 'kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}' curl -s 127.0.0.1:10249/metrics
says 'service default/web' curl -s 127.0.0.1:10249/plan
says ok curl -s 127.0.0.1:10249/healthz
says 'kubernetes_healthchecks_total{name="ping",status="success",type="healthz"} 1' curl -s 127.0.0.1:10249/metrics/slis
says 'kubernetes_healthcheck{name="proxier",type="healthz"} 1' curl -s 127.0.0.1:10249/metrics/slis
says 'profiling is off' curl -s 127.0.0.1:10249/debug/pprof/profile
says Starting api "$url/api/v1/namespaces/default/events"

# ---- connections
"$bin/fairlead-demo" serve --port 8080 >demo.log 2>&1 &
pids+=($!)
for ip in 10.244.0.2 10.244.0.3; do until_ok curl -sf "http://$ip:8080/"; done
for _ in $(seq 20); do curl -sf -o /dev/null --max-time 20 http://10.96.0.50/ || fail "the ClusterIP does not answer"; done
curl -sf -o /dev/null --max-time 20 http://192.168.7.1:30080/ || fail "the NodePort does not answer"

# ---- looking
says 'the kernel holds what it should for' "$bin/fairlead" proxy verify --config config.yaml
says 10.244.0.3:8080 "$bin/fairlead" trace host 10.96.0.50
says 'the endpoint sees 10.244.0.9' "$bin/fairlead" trace 10.244.0.9 10.96.0.50:80/tcp
says REJECT "$bin/fairlead" trace 10.244.0.9 10.96.0.50:81
code 2 "$bin/fairlead" trace nobody 10.96.0.50
code 2 "$bin/fairlead" trace 10.244.0.9 10.96.0.50/icmp
counted() { "$bin/fairlead" proxy top --once | awk '$1 == "default/web" && $3 != "(all)" { n += $4 } END { exit n != 21 }'; }
until_ok counted
in_bytes() { "$bin/fairlead" proxy top --once | awk '$1 == "default/web" && $3 == "(all)" { p += $6; b += $7 } END { exit !(p >= 21 * 4 && b > 21 * 400) }'; }
until_ok in_bytes
says 'fairlead_proxy_flow_accounting 1' curl -s 127.0.0.1:10249/metrics
[[ $(sysctl -n net.netfilter.nf_conntrack_acct) == 1 ]] || fail "accounting was not switched on"
says 'fairlead_proxy_service_connections_total{namespace="default",service="web",port="http",protocol="TCP"} 21' curl -s 127.0.0.1:10249/metrics
says 'ClusterIP 10.96.0.50:80 -> cluster' "$bin/fairlead" proxy plan -f service.yaml -f slice.yaml -f node.yaml --cluster-cidr 10.244.0.0/16
code 2 "$bin/fairlead" proxy plan
code 1 "$bin/fairlead" proxy plan -f /nonexistent.yaml
code 2 "$bin/fairlead" proxy --no-such-flag
"$bin/fairlead" proxy --config config.yaml --write-config-to out.yaml
grep -q "^mode: .*nftables" out.yaml || fail "the configuration was not written"
code 0 "$bin/fairlead" proxy --config config.yaml --init-only

# ---- somebody else's hands: repaired while the proxy runs, reported when it does not
nft flush ruleset
until_ok "$bin/fairlead" proxy verify --config config.yaml

# ---- a changed configuration: an invalid one is kept out, a valid one ends the proxy, and the next one writes nothing
config 'mode: nonsense'
until_ok grep -q 'the old one stays in force' proxy.log
kill -0 $proxy || fail "the proxy ended because of an invalid configuration"
accounting=false config 'enableProfiling: true'
got=0; wait $proxy || got=$?
[[ $got == 1 ]] || fail "a changed configuration: exit code $got, not 1"
nft delete element ip fairlead-proxy services '{ 10.96.0.50 . tcp . 80 }'
code 1 "$bin/fairlead" proxy verify --config config.yaml
grep -q 'add element ip fairlead-proxy services { 10.96.0.50 . tcp . 80' last.log || fail "verify does not say what is missing"
./kube-proxy --config config.yaml >>proxy.log 2>&1 &
proxy=$!; pids+=($proxy)
until_ok "$bin/fairlead" proxy verify --config config.yaml
until_ok curl -sf 127.0.0.1:10256/healthz
before=$(nft list ruleset | sed 's/counter packets.*//' | md5sum)
kill $proxy; got=0; wait $proxy || got=$?
[[ $got == 0 ]] || fail "asked to end: exit code $got"
./kube-proxy --config config.yaml >>proxy.log 2>&1 &
proxy=$!; pids+=($proxy)
until_ok curl -sf 127.0.0.1:10256/healthz
[[ $before == $(nft list ruleset | sed 's/counter packets.*//' | md5sum) ]] || fail "a restart changed the rules"
grep -q 'first sync of 2 services took .* 0 kernel objects written' proxy.log || fail "a restart wrote something"

says 'packets and bytes are not counted: start the proxy with --flow-accounting' "$bin/fairlead" proxy top --once
says 'fairlead_proxy_flow_accounting 0' curl -s 127.0.0.1:10249/metrics

# ---- profiling, which this configuration switches on
code 0 curl -sf -o profile.pb '127.0.0.1:10249/debug/pprof/profile?seconds=1'
[[ $(wc -c <profile.pb) -gt 100 ]] || fail "the profile is empty"
says config.yaml bash -c 'curl -s 127.0.0.1:10249/debug/pprof/cmdline | tr "\\0" " "'
says 'verbosity to 5' curl -s -X PUT -d 5 127.0.0.1:10249/debug/flags/v

# ---- the API goes away: rules and health stay
kill "${pids[0]}"
sleep 0.5
curl -sf -o /dev/null --max-time 20 http://10.96.0.50/ || fail "without the API server connections fail"
says '"healthy":true' curl -s 127.0.0.1:10256/healthz
code 1 "$bin/fairlead" proxy verify --config config.yaml
kill $proxy; wait $proxy || true

# ---- cleaning up, also after kube-proxy; what others own stays
nft add table ip kube-proxy; nft add chain ip kube-proxy services; nft add table ip mine
if command -v iptables-nft >/dev/null; then
  iptables-nft -t nat -N KUBE-SERVICES; iptables-nft -t nat -N KUBE-SVC-AAAAAAAAAAAAAAAA
  iptables-nft -t nat -A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
  iptables-nft -t nat -A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-AAAAAAAAAAAAAAAA
  iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A OUTPUT -j DOCKER
fi
code 0 "$bin/fairlead" proxy --cleanup
tables=$(nft list tables)
[[ $tables == *"table ip mine"* && $tables != *fairlead* && $tables != *kube-proxy* ]] || fail "left: $tables"
if command -v iptables-nft >/dev/null; then
  rules=$(iptables-nft-save -t nat)
  [[ $rules == *"-A OUTPUT -j DOCKER"* && $rules != *KUBE-* ]] || fail "left: $rules"
fi
code 0 "$bin/fairlead" proxy --cleanup
code 1 "$bin/fairlead" proxy top --once
echo "all is well"
