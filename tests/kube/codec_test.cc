// The codec: what upstream's clients and servers read and write, row by row.
#include "kube/codec.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <thread>

#include "kube/api.h"
#include "kube/kinds.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/authentication/v1.pb.h"
#include "kube/proto/authorization/v1.pb.h"
#include "kube/proto/autoscaling/v1.pb.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "kube/proto/policy/v1.pb.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;

template <typename T>
T read(std::string_view text, std::vector<std::string>* strict = nullptr) {
  T out;
  const auto r = from_json(text, out, {.strict = strict});
  EXPECT_TRUE(r.has_value()) << r.error().message << "\n" << text;
  return out;
}

// ---- JSON text, both ways, for every special form

struct RoundTrip {
  const char* what;
  const Message& type;
  const char* in;
  const char* out;  // null: as `in`
};

const RoundTrip kRoundTrips[] = {
    {"an object carries kind and apiVersion", corev1::Pod::default_instance(),
     R"({"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}})", nullptr},
    {"a part of an object does not", corev1::PodTemplateSpec::default_instance(), R"({"metadata":{"name":"a"}})", nullptr},
    {"order of the schema, not of the input", metav1::ObjectMeta::default_instance(), R"({"namespace":"n","name":"a"})",
     R"({"name":"a","namespace":"n"})"},
    {"map entries by key", metav1::ObjectMeta::default_instance(), R"({"labels":{"b":"2","a":"1","c":""}})",
     R"({"labels":{"a":"1","b":"2","c":""}})"},
    {"a pointer keeps its zero", appsv1::DeploymentSpec::default_instance(),
     R"({"replicas":0,"minReadySeconds":0,"paused":false})", R"({"replicas":0})"},
    {"a pointer keeps its false", corev1::SecurityContext::default_instance(), R"({"privileged":false,"runAsUser":0})", nullptr},
    {"null is absent", appsv1::DeploymentSpec::default_instance(), R"({"replicas":null,"selector":null,"template":null})", "{}"},
    {"an empty struct is absent", appsv1::Deployment::default_instance(),
     R"({"kind":"Deployment","apiVersion":"apps/v1","metadata":{"creationTimestamp":null},"spec":{"strategy":{}},"status":{}})",
     R"({"kind":"Deployment","apiVersion":"apps/v1"})"},
    {"an empty pointer is not", corev1::Volume::default_instance(), R"({"name":"v","emptyDir":{}})", nullptr},
    {"an empty selector means all, no selector none", corev1::PodAffinityTerm::default_instance(),
     R"({"labelSelector":{},"topologyKey":"x"})", nullptr},
    {"the pod selector of a policy is always there", networkingv1::NetworkPolicySpec::default_instance(), "{}",
     R"({"podSelector":{}})"},
    {"always-present zeros", corev1::ContainerStatus::default_instance(),
     R"({"name":"c","state":{"running":{"startedAt":"2024-05-01T10:00:00Z"}}})",
     R"({"name":"c","state":{"running":{"startedAt":"2024-05-01T10:00:00Z"}},"ready":false,"restartCount":0,"image":"","imageID":""})"},
    {"a list always has its items", corev1::PodList::default_instance(), R"({})",
     R"({"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]})"},
    {"items of a list may say what they are", corev1::PodList::default_instance(),
     R"({"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}]})",
     R"({"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"a"}}]})"},
    {"inlined members", corev1::Probe::default_instance(), R"({"httpGet":{"path":"/","port":"web"},"periodSeconds":5})", nullptr},
    {"inlined two deep", corev1::Volume::default_instance(),
     R"({"name":"v","configMap":{"name":"c","defaultMode":420,"optional":false}})",
     R"({"name":"v","configMap":{"name":"c","defaultMode":420,"optional":false}})"},
    {"an ephemeral container is a container", corev1::EphemeralContainer::default_instance(),
     R"({"name":"debug","image":"busybox","targetContainerName":"web"})", nullptr},
    {"IntOrString as a number", corev1::ServicePort::default_instance(), R"({"port":80,"targetPort":8080})", nullptr},
    {"IntOrString as text", corev1::ServicePort::default_instance(), R"({"port":80,"targetPort":"http"})", nullptr},
    {"IntOrString zero behind a pointer", appsv1::RollingUpdateDeployment::default_instance(),
     R"({"maxUnavailable":"25%","maxSurge":0})", nullptr},
    {"quantities become canonical", corev1::ResourceRequirements::default_instance(),
     R"({"limits":{"memory":"1024Mi","cpu":0.5},"requests":{"cpu":"1000m","memory":1000}})",
     R"({"limits":{"cpu":"500m","memory":"1Gi"},"requests":{"cpu":"1","memory":"1k"}})"},
    {"time with an offset", metav1::ObjectMeta::default_instance(), R"({"creationTimestamp":"2024-05-01T12:30:00.9+02:30"})",
     R"({"creationTimestamp":"2024-05-01T10:00:00Z"})"},
    {"time before 1970", metav1::ObjectMeta::default_instance(), R"({"creationTimestamp":"1969-12-31T23:59:59Z"})", nullptr},
    {"the first second of 1970 is a time", metav1::ObjectMeta::default_instance(),
     R"({"creationTimestamp":"1970-01-01T00:00:00Z"})", nullptr},
    {"micro time", coordinationv1::LeaseSpec::default_instance(),
     R"({"renewTime":"2024-02-29T10:00:00.123456Z","leaseTransitions":0})",
     R"({"renewTime":"2024-02-29T10:00:00.123456Z","leaseTransitions":0})"},
    {"micro time, shorter and longer fractions", coordinationv1::LeaseSpec::default_instance(),
     R"({"acquireTime":"2024-02-29T10:00:00.5Z","renewTime":"2024-02-29T10:00:00.123456789Z"})",
     R"({"acquireTime":"2024-02-29T10:00:00.500000Z","renewTime":"2024-02-29T10:00:00.123456Z"})"},
    {"bytes as base64", corev1::Secret::default_instance(),
     R"({"kind":"Secret","apiVersion":"v1","data":{"a":"aGVsbG8=","b":"","c":"/+8="},"stringData":{"x":"y"},"type":"Opaque"})",
     nullptr},
    {"an embedded object is kept as it is", appsv1::ControllerRevision::default_instance(),
     R"({"kind":"ControllerRevision","apiVersion":"apps/v1","data":{"spec":{"z":[1,2.5,null,true],"a":{}}},"revision":3})",
     nullptr},
    {"managed fields", metav1::ManagedFieldsEntry::default_instance(),
     R"({"manager":"kubectl","operation":"Apply","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{}}}}})",
     nullptr},
    {"a wrapped list stands bare", authorizationv1::SubjectAccessReviewSpec::default_instance(),
     R"({"user":"u","extra":{"scopes":["a","b"],"empty":[]}})", R"({"user":"u","extra":{"empty":[],"scopes":["a","b"]}})"},
    {"verbs of discovery", metav1::APIResource::default_instance(),
     R"({"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list"],"shortNames":["po"]})",
     R"({"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list"],"shortNames":["po"]})"},
    {"names that differ from the schema's", networkingv1::IngressClassParametersReference::default_instance(),
     R"({"apiGroup":"k8s.example.com","kind":"P","name":"x"})", nullptr},
    {"the capital P of a daemon endpoint", corev1::NodeDaemonEndpoints::default_instance(),
     R"({"kubeletEndpoint":{"Port":10250}})", nullptr},
    {"a map of times", policyv1::PodDisruptionBudgetStatus::default_instance(),
     R"({"disruptedPods":{"p":"2024-05-01T10:00:00Z"}})",
     R"({"disruptedPods":{"p":"2024-05-01T10:00:00Z"},"disruptionsAllowed":0,"currentHealthy":0,"desiredHealthy":0,"expectedPods":0})"},
    {"null items are zero items", corev1::PodSpec::default_instance(),
     R"({"containers":[null],"imagePullSecrets":[{}],"hostAliases":null})",
     R"({"containers":[{"name":""}],"imagePullSecrets":[{}]})"},
    {"null values in maps", metav1::ObjectMeta::default_instance(), R"({"labels":{"a":null}})", R"({"labels":{"a":""}})"},
    {"endpoints with an empty port name", discoveryv1::EndpointSlice::default_instance(),
     R"({"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1"}],"ports":[{"name":"","protocol":"TCP","port":80}]})",
     nullptr},
    {"largest and smallest integers", metav1::ListMeta::default_instance(), R"({"remainingItemCount":-9223372036854775808})",
     nullptr},
    {"text that needs escapes", metav1::Status::default_instance(),
     "{\"message\":\"a\\\"b\\\\c\\n\\t\\u0001 \\u00e4 \xF0\x9F\x98\x80 </>\"}",
     "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"message\":\"a\\\"b\\\\c\\n\\t\\u0001 \xC3\xA4 "
     "\xF0\x9F\x98\x80 </>\"}"},
};

TEST(CodecJson, RoundTrips) {
  for (const RoundTrip& r : kRoundTrips) {
    SCOPED_TRACE(r.what);
    const std::unique_ptr<Message> m(r.type.New());
    std::vector<std::string> strict;
    const auto result = from_json(r.in, *m, {.strict = &strict});
    ASSERT_TRUE(result.has_value()) << result.error().message;
    EXPECT_EQ(strict, std::vector<std::string>{});
    const std::string text = to_json(*m);
    EXPECT_EQ(text, r.out ? r.out : r.in);

    // The value builder says the same as the text writer.
    const TypeName* name = type_name_of(*m->GetDescriptor());
    const json::value value = name ? json::value(to_json_object(*m, name->api_version, name->kind)) : to_json_value(*m);
    EXPECT_EQ(value, json::parse(text));

    // JSON -> message -> protobuf -> message -> JSON changes nothing, and what was written reads back equal.
    const std::unique_ptr<Message> again(r.type.New());
    ASSERT_TRUE(from_json(text, *again).has_value());
    EXPECT_EQ(to_protobuf(*again, "v1", "X"), to_protobuf(*m, "v1", "X"));
    const std::unique_ptr<Message> wire(r.type.New());
    const auto decoded = from_protobuf(to_protobuf(*m, "v1", "X"), *wire);
    ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_EQ(to_json(*wire), text);
  }
}

// ---- errors carry the path

struct Wrong {
  const char* in;
  const char* message;
};

TEST(CodecJson, ErrorsNameTheField) {
  const Wrong rows[] = {
      {R"([])", "must be an object, not a list"},
      {R"("x")", "must be an object, not the string \"x\""},
      {R"({"kind":5})", "kind: must be a string, not the number 5"},
      {R"({"metadata":"x"})", "metadata: must be an object, not the string \"x\""},
      {R"({"metadata":{"labels":{"app.kubernetes.io/name":5}}})",
       "metadata.labels[app.kubernetes.io/name]: must be a string, not the number 5"},
      {R"({"metadata":{"labels":["a"]}})", "metadata.labels: must be an object, not a list"},
      {R"({"metadata":{"creationTimestamp":"yesterday"}})",
       "metadata.creationTimestamp: must be a time such as \"2006-01-02T15:04:05Z\" (RFC 3339), not \"yesterday\""},
      {R"({"metadata":{"creationTimestamp":5}})",
       "metadata.creationTimestamp: must be a time such as \"2006-01-02T15:04:05Z\", not the number 5"},
      {R"({"metadata":{"finalizers":["a",true]}})", "metadata.finalizers[1]: must be a string, not true"},
      {R"({"spec":{"replicas":"three"}})", "spec.replicas: must be an integer of 32 bits, not the string \"three\""},
      {R"({"spec":{"replicas":1.5}})", "spec.replicas: must be an integer of 32 bits, not the number 1.5"},
      {R"({"spec":{"replicas":2147483648}})", "spec.replicas: must be an integer of 32 bits, not the number 2147483648"},
      {R"({"spec":{"paused":"yes"}})", "spec.paused: must be true or false, not the string \"yes\""},
      {R"({"spec":{"template":{"spec":{"containers":{}}}}})", "spec.template.spec.containers: must be a list, not an object"},
      {R"({"spec":{"template":{"spec":{"containers":[{"ports":[{"containerPort":80},{"containerPort":"http"}]}]}}}})",
       "spec.template.spec.containers[0].ports[1].containerPort: must be an integer of 32 bits, not the string \"http\""},
      {R"({"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}}})",
       "spec.template.spec.containers[0].resources.limits[cpu]: quantities must match the regular expression "
       "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$', and this is the string \"lots\""},
      {R"({"spec":{"strategy":{"rollingUpdate":{"maxSurge":true}}}})",
       "spec.strategy.rollingUpdate.maxSurge: must be a number or a string, not true"},
      {R"({"spec":{"strategy":{"rollingUpdate":{"maxSurge":4294967296}}}})",
       "spec.strategy.rollingUpdate.maxSurge: must be an integer of 32 bits, not the number 4294967296"},
      {R"({"spec":{"template":{"spec":{"volumes":[{"emptyDir":5}]}}}})",
       "spec.template.spec.volumes[0].emptyDir: must be an object, not the number 5"},
      {"{\n  \"spec\": oops}", "invalid JSON at line 2, column 11: syntax error"},
      {R"({"metadata":{"name":1e400}})", "invalid JSON at line 1, column 26: exponent overflow"},
      {"{} {}", "invalid JSON at line 1, column 4: extra data"},
      {"", "invalid JSON at line 1, column 1: incomplete JSON"},
  };
  for (const Wrong& w : rows) {
    SCOPED_TRACE(w.in);
    appsv1::Deployment d;
    const auto r = from_json(w.in, d);
    ASSERT_FALSE(r.has_value());
    EXPECT_EQ(r.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(r.error().message, w.message);
  }
  corev1::Secret s;
  EXPECT_EQ(from_json(R"({"data":{"a":"not base64!"}})", s).error().message,
            "data[a]: must be base64, not the string \"not base64!\"");
}

TEST(CodecJson, StrictReportsInUpstreamsWords) {
  std::vector<std::string> strict;
  read<appsv1::Deployment>(
      R"({"kind":"Deployment","spec":{"replica":1,"replicas":1,"replicas":2,"template":{"kind":"x","spec":{"containers":[{"name":"a"},{"name":"b","imag":"x","name":"c"}],
          "foo":{"bar":1}}}},"metadata":{"labels":{"a.b/c":"1","a.b/c":"2"}},"extra":null})",
      &strict);
  EXPECT_EQ(strict, (std::vector<std::string>{
                        "duplicate field \"spec.replicas\"", "duplicate field \"spec.template.spec.containers[1].name\"",
                        "duplicate field \"metadata.labels.a.b/c\"", "unknown field \"spec.replica\"",
                        "unknown field \"spec.template.kind\"", "unknown field \"spec.template.spec.containers[1].imag\"",
                        "unknown field \"spec.template.spec.foo\"", "unknown field \"extra\""}));
}

TEST(CodecJson, StrictIsBoundedAndTheLastDuplicateWins) {
  std::string text = "{";
  for (int i = 0; i < 500; ++i) text += fmt::format("\"x{}\":1,", i);
  text += R"("metadata":{"name":"a","name":"b"}})";
  std::vector<std::string> strict;
  const auto pod = read<corev1::Pod>(text, &strict);
  EXPECT_EQ(strict.size(), 100u);
  EXPECT_EQ(pod.metadata().name(), "b");
}

TEST(CodecJson, DepthIsBounded) {
  const auto nested = [](int n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_TRUE(parse_json(nested(100)).has_value());
  EXPECT_EQ(parse_json(nested(101)).error().message, "JSON is nested more than 100 levels deep");
  EXPECT_FALSE(parse_json(nested(1'000'000)).has_value());
}

TEST(CodecJson, BadUtf8IsReplacedNotPassedOn) {
  std::string out;
  append_json_string(out, std::string_view("a\xFF\xC3(\xED\xA0\x80\xE2\x82\xAC\xF4\x90\x80\x80\x80\xC3", 16));
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(out, "\"a" + r + r + "(" + r + r + r + "\xE2\x82\xAC" + r + r + r + r + r + r + "\"");
  EXPECT_TRUE(parse_json(out).has_value());
}

// ---- protobuf

// What a Go client writes for an object whose non-pointer fields are all zero.
TEST(CodecProtobuf, ZerosOfGoClientsAreNormalised) {
  appsv1::Deployment go;
  auto& meta = *go.mutable_metadata();
  meta.set_name("web");
  meta.set_generatename("");
  meta.set_generation(0);
  meta.mutable_creationtimestamp();
  auto& spec = *go.mutable_spec();
  spec.set_replicas(0);
  spec.set_minreadyseconds(0);
  spec.set_paused(false);
  spec.mutable_strategy()->set_type("");
  auto& c = *spec.mutable_template_()->mutable_spec()->add_containers();
  spec.mutable_template_()->mutable_metadata()->mutable_creationtimestamp();
  c.set_name("c");
  c.set_image("");
  c.set_stdin(false);
  (*c.mutable_resources()->mutable_limits())["cpu"].set_string("1000m");
  c.mutable_livenessprobe()->mutable_handler()->mutable_httpget()->mutable_port()->set_type(0);
  c.mutable_livenessprobe()->mutable_handler()->mutable_httpget()->mutable_port()->set_intval(80);
  c.mutable_livenessprobe()->mutable_handler()->mutable_httpget()->mutable_port()->set_strval("");
  go.mutable_status()->set_replicas(0);

  appsv1::Deployment d;
  ASSERT_TRUE(from_protobuf(to_protobuf(go), d).has_value());
  EXPECT_EQ(
      to_json(d),
      R"({"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web"},"spec":{"replicas":0,"template":{"spec":{"containers":[)"
      R"({"name":"c","resources":{"limits":{"cpu":"1"}},"livenessProbe":{"httpGet":{"port":80}}}]}}}})");
  appsv1::Deployment from_text;
  ASSERT_TRUE(from_json(to_json(d), from_text).has_value());
  EXPECT_EQ(to_protobuf(d), to_protobuf(from_text)) << "equal objects are equal bytes, whatever form they came in";
}

TEST(CodecProtobuf, EnvelopeBytes) {
  corev1::Namespace n;
  n.mutable_metadata()->set_name("a");
  const std::string bytes = to_protobuf(n);
  const std::string_view expected("k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x05\x0a\x03\x0a\x01\x61\x1a\x00\x22\x00", 32);
  EXPECT_EQ(bytes, expected);
  const auto e = open_envelope(bytes);
  ASSERT_TRUE(e.has_value());
  EXPECT_EQ(e->api_version, "v1");
  EXPECT_EQ(e->kind, "Namespace");
  EXPECT_EQ(e->raw, n.SerializeAsString());
  const auto any = decode_object(std::string_view(bytes));
  ASSERT_TRUE(any.has_value());
  EXPECT_EQ(any->kind, find_kind("v1", "Namespace"));
}

TEST(CodecProtobuf, MalformedInputIsRefused) {
  corev1::Namespace n;
  n.mutable_metadata()->set_name("abcdef");
  const std::string good = to_protobuf(n);
  corev1::Namespace out;
  EXPECT_FALSE(from_protobuf("", out).has_value());
  EXPECT_FALSE(from_protobuf("{}", out).has_value());
  EXPECT_TRUE(from_protobuf(std::string_view("k8s\0", 4), out).has_value()) << "no body is an empty object";
  int refused = 0;
  for (std::size_t n_bytes = 4; n_bytes < good.size(); ++n_bytes)
    refused += !from_protobuf(std::string_view(good).substr(0, n_bytes), out);
  EXPECT_GT(refused, 25) << "all cuts but those between two fields";
  const struct {
    const char* what;
    void (*spoil)(corev1::Pod&);
    const char* message;
  } rows[] = {
      {"time out of range", [](corev1::Pod& p) { p.mutable_metadata()->mutable_creationtimestamp()->set_seconds(1LL << 60); },
       "metadata.creationTimestamp: time out of range: 1152921504606846976 seconds since 1970"},
      {"bad quantity",
       [](corev1::Pod& p) {
         (*p.mutable_spec()->add_containers()->mutable_resources()->mutable_limits())["cpu"].set_string("x");
       },
       "spec.containers[0].resources.limits[cpu]: quantities must match the regular expression "
       "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"},
      {"neither int nor string",
       [](corev1::Pod& p) {
         p.mutable_spec()
             ->add_containers()
             ->mutable_livenessprobe()
             ->mutable_handler()
             ->mutable_tcpsocket()
             ->mutable_port()
             ->set_type(7);
       },
       "spec.containers[0].livenessProbe.tcpSocket.port: neither a number nor a string (type 7)"},
      {"managed fields that are not JSON",
       [](corev1::Pod& p) { p.mutable_metadata()->add_managedfields()->mutable_fieldsv1()->set_raw("{oops"); },
       "metadata.managedFields[0].fieldsV1: invalid JSON at line 1, column 2: syntax error"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    corev1::Pod p, decoded;
    row.spoil(p);
    const auto r = from_protobuf(to_protobuf(p), decoded);
    ASSERT_FALSE(r.has_value());
    EXPECT_EQ(r.error().message, row.message);
  }
}

TEST(CodecProtobuf, UnknownFieldsSurvive) {
  corev1::Pod p;
  p.mutable_spec()->set_nodename("n1");
  p.mutable_spec()->GetReflection()->MutableUnknownFields(p.mutable_spec())->AddLengthDelimited(900, "from the future");
  corev1::Pod out;
  ASSERT_TRUE(from_protobuf(to_protobuf(p), out).has_value());
  EXPECT_EQ(to_protobuf(out), to_protobuf(p));
}

TEST(CodecProtobuf, EmbeddedObjectsAreBounded) {
  corev1::ConfigMap inner;
  inner.mutable_metadata()->set_name("x");
  std::string bytes = to_protobuf(inner);
  const auto wrap = [](const std::string& in) {
    appsv1::ControllerRevision r;
    r.mutable_data()->set_raw(in);
    return to_protobuf(r);
  };
  appsv1::ControllerRevision out;
  ASSERT_TRUE(from_protobuf(wrap(bytes), out).has_value());
  EXPECT_EQ(out.data().raw(), R"({"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"}})") << "kept as JSON";
  metav1::WatchEvent event;
  event.set_type("ERROR");
  metav1::Status status;
  status.set_code(410);
  event.mutable_object()->set_raw(to_protobuf(status));
  EXPECT_EQ(to_json(event), R"({"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"code":410}})");
  for (int i = 0; i < 100; ++i) bytes = wrap(bytes);
  const auto r = from_protobuf(bytes, out);
  ASSERT_FALSE(r.has_value());
  EXPECT_NE(r.error().message.find("embedded more than 4 levels deep"), std::string::npos) << r.error().message;
}

TEST(CodecProtobuf, EqualObjectsAreEqualBytes) {
  const auto build = [](bool forward) {
    corev1::ConfigMap c;
    for (int i = 0; i < 200; ++i) {
      const int k = forward ? i : 199 - i;
      (*c.mutable_data())[fmt::format("k{}", k)] = std::to_string(k);
    }
    return c;
  };
  EXPECT_EQ(to_protobuf(build(true)), to_protobuf(build(false)));
  EXPECT_EQ(to_json(build(true)), to_json(build(false)));
}

// ---- objects of any kind

TEST(Codec, DecodeObject) {
  const Wrong rows[] = {
      {R"({"apiVersion":"v1"})", "kind: Required value"},
      {R"({"kind":"Pod"})", "apiVersion: Required value"},
      {R"({"kind":"Pod","apiVersion":""})", "apiVersion: Required value"},
      {R"({"kind":["Pod"],"apiVersion":"v1"})", "kind: must be a string, not a list"},
      {R"({"kind":"Pod","apiVersion":"apps/v1"})", "no kind \"Pod\" is registered for version \"apps/v1\""},
      {R"([])", "must be an object, not a list"},
  };
  for (const Wrong& w : rows) {
    const auto r = decode_object(std::string_view(w.in));
    ASSERT_FALSE(r.has_value()) << w.in;
    EXPECT_EQ(r.error().message, w.message);
  }
  const auto any =
      decode_object(std::string_view(R"({"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"l"}})"));
  ASSERT_TRUE(any.has_value());
  EXPECT_EQ(any->kind->resource, "leases");
}

TEST(Codec, EveryKindSurvivesEmpty) {
  for (const Kind& k : kinds()) {
    SCOPED_TRACE(k.kind);
    const std::unique_ptr<Message> m(k.prototype->New());
    const std::string text = to_json(*m);
    std::vector<std::string> strict;
    ASSERT_TRUE(from_json(text, *m, {.strict = &strict}).has_value());
    EXPECT_TRUE(strict.empty());
    EXPECT_EQ(to_json(*m), text);
    ASSERT_TRUE(decode_object(std::string_view(text)).has_value());
  }
}

TEST(Codec, SharedObjectsAreReadByManyThreads) {
  corev1::Pod p;
  for (int i = 0; i < 50; ++i) (*p.mutable_metadata()->mutable_labels())[fmt::format("k{}", i)] = "v";
  (*p.mutable_spec()->mutable_overhead())["cpu"].set_string("1");
  const std::string expected = to_json(p);
  std::vector<std::thread> threads;
  std::atomic<int> equal = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) equal += to_json(p) == expected && json::serialize(to_json_value(p)).size() > 100;
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(equal, 200);
}

}  // namespace
}  // namespace fairlead::kube
