#!/usr/bin/env bash
# `fairlead proxy --proxy-mode=ipvs` as a node runs it: an API server, a Service with two endpoints on this machine, a client. Runs in
# the guest, started by tests/ipvs/uml/run; GUEST_BIN is the folder of the programs. Everything it writes is in the guest's tmpfs.
set -euo pipefail
fairlead=$GUEST_BIN/fairlead
work=$(mktemp -d /run/program.XXXXXX)
cd "$work"
pids=()
trap 'code=$?; ((code == 0)) || tail -n 30 ./*.log; ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true; exit $code' EXIT

step() { echo "== $*"; }
die() { echo "FAILED: $*"; exit 1; }
# until_true SECONDS COMMAND...: a slow guest gets its time, a fast one does not wait
until_true() {
  local deadline=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "not within its time: $*"
    sleep 0.2
  done
}
api() { curl -sS --fail-with-body --cacert ca.pem -H 'Authorization: Bearer secret' -H 'Content-Type: application/json' "$@"; }
post() { api -X POST --data-binary @- "https://127.0.0.1:6443$1" >answer.json || die "POST $1: $(cat answer.json)"; }
ask() { curl -sS -m 5 "http://$1/?format=text"; }
start_proxy() {
  "$fairlead" proxy --proxy-mode=ipvs --kubeconfig=kubeconfig --hostname-override=n1 --cluster-cidr=10.244.0.0/16 "$@" >"proxy-$1.log" 2>&1 &
  proxy=$!
  pids+=("$proxy")
}

step "a node with kubelet's mark of iptables-legacy, the only one in this kernel"
ip link set lo up
ip link add lan type dummy
ip addr add 192.168.55.1/24 dev lan
ip link set lan up
ip link add pods type dummy
ip addr add 10.244.0.1/24 dev pods
ip link set pods up
iptables-legacy -t mangle -N KUBE-KUBELET-CANARY

step "an API server"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 \
  -keyout key.pem -out ca.pem 2>/dev/null
echo 'secret,admin,1,"system:masters"' >tokens
cat >kubeconfig <<END
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $work/ca.pem}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
END
"$fairlead" apiserver --bind-address=127.0.0.1 --secure-port=6443 --data-dir="$work/etcd" --tls-cert-file=ca.pem --tls-private-key-file=key.pem \
  --token-auth-file=tokens >apiserver.log 2>&1 &
pids+=($!)
until_true 60 api https://127.0.0.1:6443/readyz

step "a Service, two endpoints, this node"
post /api/v1/nodes <<<'{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"},"status":{"addresses":[{"type":"InternalIP","address":"192.168.55.1"}]}}'
api -X PUT --data-binary @- https://127.0.0.1:6443/api/v1/nodes/n1/status >answer.json \
  <<<'{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"},"status":{"addresses":[{"type":"InternalIP","address":"192.168.55.1"}]}}'
post /api/v1/namespaces/default/services <<<'{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"type":"NodePort","clusterIP":"10.96.0.50",
  "ports":[{"port":80,"targetPort":8080,"nodePort":30080}]}}'
post /apis/discovery.k8s.io/v1/namespaces/default/endpointslices <<<'{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice",
  "metadata":{"name":"web-1","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","ports":[{"name":"","port":8080,"protocol":"TCP"}],
  "endpoints":[{"addresses":["10.244.0.1"],"nodeName":"n1","conditions":{"ready":true}}]}'
"$GUEST_BIN/fairlead-demo" serve --port 8080 >demo.log 2>&1 &
pids+=($!)

step "a scheduler that does not exist is named"
if "$fairlead" proxy --proxy-mode=ipvs --kubeconfig=kubeconfig --hostname-override=n1 --ipvs-scheduler=nonesuch >refused.log 2>&1; then
  die "it was accepted"
fi
grep -q nonesuch refused.log || die "not named: $(cat refused.log)"

step "the proxy programs it"
start_proxy --v=2
until_true 60 grep -q "first sync" "proxy---v=2.log"
until_true 20 ask 10.96.0.50
until_true 20 ask 192.168.55.1:30080
[[ $(curl -sS http://127.0.0.1:10249/proxyMode) == ipvs ]] || die "/proxyMode"
"$fairlead" proxy verify --proxy-mode=ipvs --kubeconfig=kubeconfig --hostname-override=n1 --cluster-cidr=10.244.0.0/16 || die "drift"
"$fairlead" trace --proxy-mode=ipvs host 10.96.0.50:80 | tee trace.txt
grep -q 10.244.0.1:8080 trace.txt || die "trace does not name the endpoint"

step "drift is seen"
ipvsadm -d -t 10.96.0.50:80 -r 10.244.0.1:8080
if "$fairlead" proxy verify --proxy-mode=ipvs --kubeconfig=kubeconfig --hostname-override=n1 --cluster-cidr=10.244.0.0/16 >verify.log; then
  die "not seen"
fi
grep -q "ipvsadm -a -t 10.96.0.50:80 -r 10.244.0.1:8080" verify.log || die "$(cat verify.log)"

step "the proxy stops, its rules stay; the next one puts right what is missing"
kill "$proxy"
wait "$proxy" || true
ask 192.168.55.1:30080 >/dev/null || die "the rules went with the proxy"
start_proxy --v=3
until_true 60 grep -q "first sync.* 1 kernel objects written" "proxy---v=3.log"
until_true 20 ask 10.96.0.50

step "clean-up leaves nothing"
kill "$proxy"
wait "$proxy" || true
"$fairlead" proxy --proxy-mode=ipvs --cleanup
[[ -z $(ipvsadm -Sn) && -z $(ipset list -name) ]] || die "left: $(ipvsadm -Sn; ipset list -name)"
[[ $(iptables-legacy-save | grep -c KUBE-) == 1 ]] || die "left: $(iptables-legacy-save)"
! ip link show kube-ipvs0 2>/dev/null || die "kube-ipvs0 is left"
# What kube-proxy's ipvs mode leaves when it is killed: virtual servers of a ClusterIP and of a NodePort, the addresses on its link, its
# sets, and chains that use them. Beside it what is not its: somebody's virtual server, link, set, and the kubelet's chain.
kube_proxy_was_here() {
  ip link add kube-ipvs0 type dummy
  ip addr add 10.96.0.77/32 dev kube-ipvs0
  ipvsadm -A -t 10.96.0.77:80 -s rr
  ipvsadm -a -t 10.96.0.77:80 -r 10.244.0.1:8080 -m
  ipvsadm -A -u 10.96.0.77:53 -s rr
  ipvsadm -A -t 192.168.55.1:30077 -s rr
  ipvsadm -a -t 192.168.55.1:30077 -r 10.244.0.1:8080 -m
  ipset create KUBE-CLUSTER-IP hash:ip,port
  ipset add KUBE-CLUSTER-IP 10.96.0.77,tcp:80
  ipset create KUBE-LOOP-BACK hash:ip,port,ip
  ipset create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
  ipset add KUBE-NODE-PORT-TCP 30077
  ipset create KUBE-LOAD-BALANCER hash:ip,port
  ipset create KUBE-6-CLUSTER-IP hash:ip,port family inet6
  iptables-legacy-restore --noflush <<'END'
*nat
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-NODE-PORT -p tcp -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m conntrack --ctstate NEW -j KUBE-IPVS-FILTER
-A INPUT -j KUBE-NODE-PORT
-A FORWARD -j KUBE-FORWARD
-A KUBE-IPVS-FILTER -m set --match-set KUBE-LOAD-BALANCER dst,dst -j RETURN
COMMIT
END
}
ipvsadm -A -t 172.31.0.1:443 -s rr
ip link add mine type dummy
ipset create mine hash:ip
for mode in ipvs iptables; do
  step "clean-up in $mode mode after kube-proxy"
  kube_proxy_was_here
  "$fairlead" proxy --proxy-mode=$mode --cleanup || die "exit code $?"
  [[ $(ipvsadm -Sn) == "-A -t 172.31.0.1:443 -s rr" ]] || die "virtual servers: $(ipvsadm -Sn)"
  [[ $(ipset list -name) == mine ]] || die "sets: $(ipset list -name)"
  [[ $(iptables-legacy-save | grep KUBE-) == ":KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
:KUBE-KUBELET-CANARY - [0:0]" ]] || die "left: $(iptables-legacy-save)"
  ! ip link show kube-ipvs0 2>/dev/null || die "kube-ipvs0 is left"
  ip link show mine >/dev/null || die "somebody's link is gone"
  iptables-legacy -D INPUT -j KUBE-FIREWALL; iptables-legacy -X KUBE-FIREWALL
done
echo "== all is well"
