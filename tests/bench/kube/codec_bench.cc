// How fast the codec turns objects into bytes and back. A Pod as the apiserver stores it, an EndpointSlice of 100 endpoints,
// and a list of 5000 pods, as a node agent or `kubectl get pods -A` asks for it.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>

#include "kube/api.h"
#include "kube/codec.h"
#include "kube/patch.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/proto/discovery/v1.pb.h"

namespace fairlead::kube {
namespace {

constexpr std::string_view kPod =
    R"({"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-7d4b9c6f5d-x2x7p","generateName":"web-7d4b9c6f5d-",
"namespace":"default","uid":"2f1c9a3e-8f7b-4b0e-9d55-0f3f2d8a7c11","resourceVersion":"184467","generation":1,"creationTimestamp":"2024-05-01T10:00:00Z",
"labels":{"app":"web","pod-template-hash":"7d4b9c6f5d","app.kubernetes.io/name":"web","app.kubernetes.io/part-of":"shop"},
"annotations":{"prometheus.io/scrape":"true","prometheus.io/port":"9090"},
"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c6f5d","uid":"0a4a2c0e-3c1c-4f0a-8f0a-0d8a9b8c7d6e","controller":true,"blockOwnerDeletion":true}]},
"spec":{"volumes":[{"name":"config","configMap":{"name":"web","defaultMode":420}},{"name":"kube-api-access-9xkqv","projected":{"sources":[
{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}},
{"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}],"defaultMode":420}}],
"containers":[{"name":"web","image":"registry.example.com/shop/web:1.27.3","args":["--listen=:8080","--log-level=info"],
"ports":[{"name":"http","containerPort":8080,"protocol":"TCP"},{"name":"metrics","containerPort":9090,"protocol":"TCP"}],
"env":[{"name":"POD_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"MODE","value":"production"}],
"resources":{"limits":{"cpu":"500m","memory":"256Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},
"volumeMounts":[{"name":"config","readOnly":true,"mountPath":"/etc/web"},{"name":"kube-api-access-9xkqv","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],
"livenessProbe":{"httpGet":{"path":"/healthz","port":"http","scheme":"HTTP"},"initialDelaySeconds":5,"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},
"readinessProbe":{"httpGet":{"path":"/readyz","port":8080,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":5,"successThreshold":1,"failureThreshold":3},
"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent","securityContext":{"runAsNonRoot":true,"allowPrivilegeEscalation":false}}],
"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","nodeName":"worker-17",
"securityContext":{},"schedulerName":"default-scheduler","tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},
{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"},
"status":{"phase":"Running","conditions":[{"type":"Initialized","status":"True","lastTransitionTime":"2024-05-01T10:00:01Z"},
{"type":"Ready","status":"True","lastTransitionTime":"2024-05-01T10:00:09Z"},{"type":"ContainersReady","status":"True","lastTransitionTime":"2024-05-01T10:00:09Z"},
{"type":"PodScheduled","status":"True","lastTransitionTime":"2024-05-01T10:00:00Z"}],"hostIP":"192.168.1.17","hostIPs":[{"ip":"192.168.1.17"}],"podIP":"10.244.17.9",
"podIPs":[{"ip":"10.244.17.9"}],"startTime":"2024-05-01T10:00:01Z","containerStatuses":[{"name":"web","state":{"running":{"startedAt":"2024-05-01T10:00:03Z"}},"lastState":{},
"ready":true,"restartCount":0,"image":"registry.example.com/shop/web:1.27.3","imageID":"registry.example.com/shop/web@sha256:4c1e997385b8fb4ad4d1d3c7e5af7ff3f882e94d07cf5b78de9e889bc60830e6",
"containerID":"containerd://d4f5c1b9e0a8f7c6b5a4938271605f4e3d2c1b0a9f8e7d6c5b4a39281706f5e4","started":true}],"qosClass":"Burstable"}})";

void must(const Result<>& r) {
  if (r) return;
  std::fprintf(stderr, "%s\n", r.error().message.c_str());
  std::abort();
}

corev1::Pod pod() {
  corev1::Pod p;
  must(from_json(kPod, p));
  return p;
}

discoveryv1::EndpointSlice slice() {
  discoveryv1::EndpointSlice s;
  s.mutable_metadata()->set_name("web-abcde");
  s.mutable_metadata()->set_namespace_("default");
  (*s.mutable_metadata()->mutable_labels())["kubernetes.io/service-name"] = "web";
  s.set_addresstype("IPv4");
  for (int i = 0; i < 100; ++i) {
    auto& e = *s.add_endpoints();
    e.add_addresses(fmt::format("10.244.{}.{}", i / 10, i));
    e.mutable_conditions()->set_ready(true);
    e.mutable_conditions()->set_serving(true);
    e.mutable_conditions()->set_terminating(false);
    e.set_nodename(fmt::format("worker-{}", i % 10));
    e.mutable_targetref()->set_kind("Pod");
    e.mutable_targetref()->set_namespace_("default");
    e.mutable_targetref()->set_name(fmt::format("web-7d4b9c6f5d-{:05}", i));
    e.mutable_targetref()->set_uid(fmt::format("2f1c9a3e-8f7b-4b0e-9d55-0f3f2d8a{:04}", i));
  }
  auto& p = *s.add_ports();
  p.set_name("http");
  p.set_port(8080);
  p.set_protocol("TCP");
  return s;
}

template <typename T>
void encode_json(benchmark::State& state, const T& object) {
  std::string out;
  for (auto _ : state) {
    out.clear();
    append_json(out, object);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * out.size()));
  state.counters["bytes"] = static_cast<double>(out.size());
}

template <typename T>
void decode_json(benchmark::State& state, const T& object) {
  const std::string text = to_json(object);
  T out;
  for (auto _ : state) must(from_json(text, out));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
}

template <typename T>
void encode_protobuf(benchmark::State& state, const T& object) {
  std::string out;
  for (auto _ : state) {
    out = to_protobuf(object);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * out.size()));
  state.counters["bytes"] = static_cast<double>(out.size());
}

template <typename T>
void decode_protobuf(benchmark::State& state, const T& object, bool trusted) {
  const std::string bytes = to_protobuf(object);
  T out;
  for (auto _ : state) must(from_protobuf(bytes, out, trusted));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes.size()));
}

corev1::PodList pods(int n) {
  corev1::PodList list;
  for (int i = 0; i < n; ++i) *list.add_items() = pod();
  return list;
}

BENCHMARK_CAPTURE(encode_json, pod, pod());
BENCHMARK_CAPTURE(decode_json, pod, pod());
BENCHMARK_CAPTURE(encode_protobuf, pod, pod());
BENCHMARK_CAPTURE(decode_protobuf, pod_checked, pod(), false);
BENCHMARK_CAPTURE(decode_protobuf, pod_trusted, pod(), true);
BENCHMARK_CAPTURE(encode_json, slice_of_100, slice());
BENCHMARK_CAPTURE(decode_json, slice_of_100, slice());
BENCHMARK_CAPTURE(encode_protobuf, slice_of_100, slice());
BENCHMARK_CAPTURE(decode_protobuf, slice_of_100_checked, slice(), false);
BENCHMARK_CAPTURE(decode_protobuf, slice_of_100_trusted, slice(), true);
BENCHMARK_CAPTURE(encode_json, list_of_5000_pods, pods(5000))->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode_json, list_of_5000_pods, pods(5000))->Unit(benchmark::kMillisecond);

void status_patch(benchmark::State& state) {
  const auto target = to_json_value(pod());
  const auto patch = *parse_json(
      R"({"status":{"$setElementOrder/conditions":[{"type":"Ready"}],"conditions":[{"type":"Ready","status":"False"}],"phase":"Running"}})");
  for (auto _ : state) benchmark::DoNotOptimize(strategic_patch(target, patch, *corev1::Pod::descriptor()));
}
BENCHMARK(status_patch);

}  // namespace
}  // namespace fairlead::kube

BENCHMARK_MAIN();
