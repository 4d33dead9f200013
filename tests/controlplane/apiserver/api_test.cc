// The API over HTTPS, request by request: what the contract with clients says about verbs, versions, watches, formats and
// errors. One server, one namespace per test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/http/client.h"
#include "controlplane/apiserver/auth/jwt.h"
#include "kube/api.h"
#include "kube/client.h"
#include "kube/codec.h"
#include "kube/custom.h"
#include "kube/informer.h"
#include "kube/kubeconfig.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "tests/base/asio_test_util.h"
#include "tests/controlplane/apiserver/test_server.h"

namespace fairlead::apiserver::test {
namespace {

namespace json = boost::json;
using fairlead::test::Loop;
using ::testing::HasSubstr;

TestServer& server() {
  static TestServer* s = new TestServer();
  return *s;
}
struct StopAtTheEnd : ::testing::Environment {
  void TearDown() override { delete &server(); }
};
const auto* const stop_at_the_end = ::testing::AddGlobalTestEnvironment(new StopAtTheEnd);

std::string quoted(std::string s) {
  std::replace(s.begin(), s.end(), '\'', '"');
  return s;
}

struct Answer {
  unsigned status = 0;
  http::Headers headers;
  std::string body;
  json::value json() const {
    boost::system::error_code ec;
    auto v = json::parse(body, ec);
    return ec ? json::value(nullptr) : v;
  }
  // A member by JSON pointer, as text; "" when it is not there.
  std::string at(std::string_view pointer) const {
    const auto v = json();
    boost::system::error_code ec;
    const auto* p = v.find_pointer(pointer, ec);
    if (!p) return "";
    return p->is_string() ? std::string(p->get_string()) : json::serialize(*p);
  }
};

class Api : public ::testing::Test {
 protected:
  void SetUp() override {
    client_ = make(std::string("admin"), {"system:masters"});
    ns_ = "api" + std::to_string(++count_);
    EXPECT_EQ(post("/api/v1/namespaces", "{'metadata':{'name':'" + ns_ + "'}}").status, 201u);
    EXPECT_EQ(post(in("serviceaccounts"), "{'metadata':{'name':'default'}}").status, 201u);
  }
  std::shared_ptr<http::Client> make(const std::string& user, const std::vector<std::string>& groups, bool certificate = true) {
    http::ClientOptions o;
    o.base_url = server().url();
    o.tls.emplace();
    o.tls->ca_pem = server().ca().certificate_pem;
    if (certificate) {
      const auto pair = pki::make_client(server().ca(), {user, groups}, std::chrono::hours(1));
      o.tls->certificate_pem = pair->certificate_pem;
      o.tls->key_pem = pair->key_pem;
    }
    return *http::make_client(loop_.executor(), o);
  }
  Answer send(std::string method, std::string target, std::string body = {}, std::vector<std::pair<std::string, std::string>> headers = {},
              std::shared_ptr<http::Client> client = nullptr) {
    http::Request r;
    r.method = std::move(method);
    r.target = std::move(target);
    r.body = quoted(std::move(body));
    for (auto& [k, v] : headers) r.headers.add(k, v);
    return send_raw(std::move(r), std::move(client));
  }
  Answer send_raw(http::Request r, std::shared_ptr<http::Client> client = nullptr) {
    Answer out;
    auto use = client ? client : client_;
    loop_.run([&]() -> Task<> {
      auto got = co_await use->request(std::move(r), std::chrono::seconds(20));
      if (!got) throw std::runtime_error(got.error().message);
      out.status = got->status;
      out.headers = std::move(got->headers);
      out.body = std::move(got->body);
    });
    return out;
  }
  Answer get(std::string target, std::string accept = {}) {
    if (accept.empty()) return send("GET", std::move(target));
    return send("GET", std::move(target), {}, {{"Accept", accept}});
  }
  Answer post(std::string target, std::string body) { return send("POST", std::move(target), std::move(body), {{"Content-Type", "application/json"}}); }
  Answer put(std::string target, std::string body) { return send("PUT", std::move(target), std::move(body), {{"Content-Type", "application/json"}}); }
  Answer del(std::string target, std::string body = {}) { return send("DELETE", std::move(target), std::move(body), {{"Content-Type", "application/json"}}); }
  Answer patch(std::string target, std::string body, std::string type = "merge-patch") {
    return send("PATCH", std::move(target), std::move(body), {{"Content-Type", "application/" + type + "+json"}});
  }
  std::string in(std::string rest) const { return "/api/v1/namespaces/" + ns_ + "/" + rest; }
  Answer make_config_map(const std::string& name, const std::string& value = "v", const std::string& label = "x") {
    return post(in("configmaps"), "{'metadata':{'name':'" + name + "','labels':{'l':'" + label + "'}},'data':{'k':'" + value + "'}}");
  }
  // The events of a watch that ends by itself (timeoutSeconds) or after `count` events.
  std::vector<json::value> watch(std::string target, std::size_t count, std::function<void()> meanwhile = {}, std::string accept = {}) {
    std::vector<json::value> events;
    auto watcher = make("watcher", {"system:masters"});
    std::unique_ptr<http::ResponseStream> stream;
    loop_.run([&]() -> Task<> {
      http::Request r;
      r.target = target;
      if (!accept.empty()) r.headers.set("Accept", accept);
      auto opened = co_await watcher->open(std::move(r), std::chrono::seconds(10));
      if (!opened) throw std::runtime_error(opened.error().message);
      stream = std::move(*opened);
    });
    if (!stream) return events;
    EXPECT_EQ(stream->status(), 200u);
    if (meanwhile) meanwhile();
    loop_.run([&]() -> Task<> {
      std::string buffer;
      while (events.size() < count) {
        auto piece = co_await stream->read_some(std::chrono::seconds(15));
        if (!piece) throw std::runtime_error("watch " + target + ": " + piece.error().message);
        if (piece->empty()) break;
        buffer += *piece;
        for (auto end = buffer.find('\n'); end != std::string::npos; end = buffer.find('\n')) {
          events.push_back(json::parse(buffer.substr(0, end)));
          buffer.erase(0, end + 1);
        }
      }
    });
    stream.reset();
    return events;
  }
  static std::string text(const json::value& event) {
    const auto& o = event.at("object");
    const auto* name = o.at("metadata").as_object().if_contains("name");
    return std::string(event.at("type").as_string()) + (name ? " " + std::string(name->as_string()) : "");
  }
  static std::vector<std::string> texts(const std::vector<json::value>& events) {
    std::vector<std::string> out;
    for (const auto& e : events) out.push_back(text(e));
    return out;
  }

  Loop loop_;
  std::shared_ptr<http::Client> client_;
  std::string ns_;
  static inline int count_ = 0;
};

TEST_F(Api, HeadersOfEveryAnswer) {
  const auto a = get("/api/v1/namespaces/default");
  EXPECT_EQ(a.status, 200u);
  EXPECT_TRUE(a.headers.get("Audit-Id"));
  EXPECT_EQ(a.headers.value_or("Cache-Control", ""), "no-cache, private");
  EXPECT_EQ(a.headers.value_or("Content-Type", ""), "application/json");
  EXPECT_EQ(a.at("/kind"), "Namespace");
  EXPECT_EQ(a.at("/apiVersion"), "v1");
}

TEST_F(Api, CreateFillsInWhatTheSystemOwns) {
  const auto a = post(in("configmaps"), "{'metadata':{'generateName':'gen-','uid':'mine','generation':7,'selfLink':'x',"
                                        "'creationTimestamp':'2001-01-01T00:00:00Z','deletionTimestamp':'2001-01-01T00:00:00Z'}}");
  EXPECT_EQ(a.status, 201u);
  EXPECT_THAT(a.at("/metadata/name"), testing::MatchesRegex("gen-[bcdfghjklmnpqrstvwxz2456789]{5}"));
  EXPECT_THAT(a.at("/metadata/uid"), testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_EQ(a.at("/metadata/namespace"), ns_);
  EXPECT_THAT(a.at("/metadata/creationTimestamp"), testing::Not(HasSubstr("2001")));
  EXPECT_EQ(a.at("/metadata/deletionTimestamp"), "");
  EXPECT_EQ(a.at("/metadata/generation"), "");
  EXPECT_EQ(get(in("configmaps/") + a.at("/metadata/name")).at("/metadata/resourceVersion"), a.at("/metadata/resourceVersion"));
}

TEST_F(Api, ErrorsAreStatusObjects) {
  make_config_map("a");
  struct Row {
    const char* method;
    std::string target;
    std::string body;
    unsigned status;
    const char* reason;
    std::string message;
  };
  for (const Row& r : std::vector<Row>{
           {"GET", in("configmaps/nope"), "", 404, "NotFound", "configmaps \"nope\" not found"},
           {"GET", "/apis/apps/v1/namespaces/" + ns_ + "/deployments/nope", "", 404, "NotFound", "deployments.apps \"nope\" not found"},
           {"GET", "/api/v1/bogus", "", 404, "NotFound", "the server could not find the requested resource"},
           {"GET", "/apis/bogus.io/v1/things", "", 404, "NotFound", "the server could not find the requested resource"},
           {"POST", in("configmaps"), "{'metadata':{'name':'a'}}", 409, "AlreadyExists", "configmaps \"a\" already exists"},
           {"POST", in("configmaps"), "{'metadata':{'name':'b','resourceVersion':'1'}}", 400, "BadRequest",
            "resourceVersion should not be set on objects to be created"},
           {"POST", in("configmaps"), "{'metadata':{'name':'b','namespace':'other'}}", 400, "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request"},
           {"POST", in("configmaps"), "{'metadata':{}}", 422, "Invalid", "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"},
           {"POST", in("configmaps"), "{'kind':'Secret','apiVersion':'v1','metadata':{'name':'b'}}", 400, "BadRequest",
            "Secret in version \"v1\" cannot be handled as a ConfigMap: the kind of the data does not match the kind of the endpoint"},
           {"POST", in("configmaps"), "{'kind':'ConfigMap','apiVersion':'v2','metadata':{'name':'b'}}", 400, "BadRequest",
            "the API version in the data (v2) does not match the expected API version (v1)"},
           {"PUT", in("configmaps/a"), "{'metadata':{'name':'b'}}", 400, "BadRequest",
            "the name of the object (b) does not match the name on the URL (a)"},
           {"PUT", in("configmaps/a"), "{'metadata':{'name':'a','resourceVersion':'1'}}", 409, "Conflict",
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"},
           {"PUT", in("configmaps/nope"), "{'metadata':{'name':'nope'}}", 404, "NotFound", "configmaps \"nope\" not found"},
           {"DELETE", "/api/v1/namespaces", "", 405, "MethodNotAllowed", "deletecollection is not supported on resources of kind \"namespaces\""},
           {"POST", in("configmaps"), "{", 400, "BadRequest", ""},
           {"POST", in("configmaps"), "[]", 400, "BadRequest", "the request body must be a JSON object"},
           {"GET", in("pods?fieldSelector=spec.bogus%3Dx"), "", 400, "BadRequest", "field label not supported: spec.bogus"},
           {"GET", in("pods?labelSelector=a%3D%3D%3Db"), "", 400, "BadRequest", ""},
           {"GET", in("pods?limit=x"), "", 400, "BadRequest", ""},
           {"GET", in("pods?resourceVersion=abc"), "", 400, "BadRequest", ""},
           {"GET", in("pods?resourceVersionMatch=Exact"), "", 422, "Invalid", ""},
           {"GET", in("pods?resourceVersion=0&resourceVersionMatch=Exact"), "", 422, "Invalid", ""},
           {"GET", in("pods?sendInitialEvents=true"), "", 422, "Invalid", ""},
           {"GET", in("pods?watch=true&sendInitialEvents=true"), "", 422, "Invalid", ""},
           {"GET", in("pods?watch=true&resourceVersion=1&resourceVersionMatch=NotOlderThan"), "", 422, "Invalid", ""},
           {"POST", in("configmaps?dryRun=Some"), "{'metadata':{'name':'b'}}", 422, "Invalid", ""},
           {"GET", in("pods/x/exec"), "", 404, "NotFound", ""},
       }) {
    const auto a = send(r.method, r.target, r.body, {{"Content-Type", "application/json"}});
    EXPECT_EQ(a.status, r.status) << r.method << " " << r.target << " " << a.body;
    EXPECT_EQ(a.at("/kind"), "Status");
    EXPECT_EQ(a.at("/status"), "Failure");
    EXPECT_EQ(a.at("/reason"), r.reason) << r.target;
    EXPECT_EQ(a.at("/code"), std::to_string(r.status));
    if (!r.message.empty()) { EXPECT_EQ(a.at("/message"), r.message) << r.target; }
  }
  EXPECT_EQ(send("GET", in("pods"), "", {{"Accept", "text/html"}}).status, 406u);
  EXPECT_EQ(send("POST", in("configmaps"), "x", {{"Content-Type", "text/plain"}}).status, 415u);
  EXPECT_EQ(send("PATCH", in("configmaps/a"), "{}", {{"Content-Type", "application/json"}}).status, 415u);
  EXPECT_EQ(send("PATCH", in("configmaps/a"), "{}", {{"Content-Type", "application/apply-patch+yaml"}}).status, 415u);
  EXPECT_EQ(get(in("configmaps/b")).status, 404u) << "nothing of the refused was stored";
}

TEST_F(Api, AuthenticationAndAuthorization) {
  const auto nobody = make("", {}, false);
  EXPECT_EQ(send("GET", "/healthz", "", {}, nobody).body, "ok");
  EXPECT_EQ(send("GET", "/version", "", {}, nobody).status, 200u);
  const auto refused = send("GET", "/api/v1/pods", "", {}, nobody);
  EXPECT_EQ(refused.status, 401u);
  EXPECT_EQ(refused.at("/reason"), "Unauthorized");
  EXPECT_EQ(send("GET", "/api/v1/pods", "", {{"Authorization", "Bearer wrong"}}, nobody).status, 401u);
  EXPECT_EQ(send("GET", "/healthz", "", {{"Authorization", "Bearer wrong"}}, nobody).status, 401u) << "wrong credentials are never anonymous";
  EXPECT_EQ(send("GET", "/api/v1/pods", "", {{"Authorization", "Bearer test-token"}}, nobody).status, 200u);
  const auto plain = send("GET", "/api/v1/pods", "", {{"Authorization", "Bearer plain-token"}}, nobody);
  EXPECT_EQ(plain.status, 403u);
  EXPECT_EQ(plain.at("/message"), "pods is forbidden: User \"plain-user\" cannot list resource \"pods\" in API group \"\" at the cluster scope");
  EXPECT_EQ(send("GET", "/metrics", "", {}, nobody).status, 401u);
  EXPECT_THAT(get("/metrics").body, HasSubstr("apiserver_request_total"));
  // A node agent writes its own node only.
  const auto n1 = make("system:node:n1", {"system:nodes"});
  EXPECT_EQ(send("POST", "/api/v1/nodes", "{'metadata':{'name':'" + ns_ + "-n1'}}", {{"Content-Type", "application/json"}}, n1).status, 201u);
  EXPECT_EQ(send("GET", "/api/v1/secrets", "", {}, make("system:kube-proxy", {})).status, 403u);
}

TEST_F(Api, ServiceAccountTokens) {
  const auto made = post(in("serviceaccounts/default/token"), "{'spec':{'expirationSeconds':600,'audiences':['https://kubernetes.default.svc.cluster.local']}}");
  ASSERT_EQ(made.status, 201u) << made.body;
  const auto token = made.at("/status/token");
  const auto nobody = make("", {}, false);
  const auto who = send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "{}",
                        {{"Authorization", "Bearer " + token}, {"Content-Type", "application/json"}}, nobody);
  EXPECT_EQ(who.status, 201u) << who.body;
  EXPECT_EQ(who.at("/status/userInfo/username"), "system:serviceaccount:" + ns_ + ":default");
  // Tampered with: the payload, the signature, the algorithm.
  const auto first = token.find('.'), second = token.find('.', first + 1);
  const auto try_token = [&](const std::string& t) {
    return send("GET", "/version", "", {{"Authorization", "Bearer " + t}}, nobody).status;
  };
  EXPECT_EQ(try_token(token), 200u);
  EXPECT_EQ(try_token(token.substr(0, second) + ".AAAA"), 401u);
  auto payload = *base64url_decode(token.substr(first + 1, second - first - 1));
  payload.replace(payload.find(":default"), 8, ":deploy!");
  EXPECT_EQ(try_token(token.substr(0, first + 1) + base64url(payload) + token.substr(second)), 401u);
  EXPECT_EQ(try_token(base64url(R"({"alg":"none"})") + token.substr(first, second - first) + "."), 401u);
  const auto review = post("/apis/authentication.k8s.io/v1/tokenreviews", "{'spec':{'token':'" + token + "'}}");
  EXPECT_EQ(review.at("/status/authenticated"), "true");
  const auto other = post("/apis/authentication.k8s.io/v1/tokenreviews", "{'spec':{'token':'" + token + "','audiences':['else']}}");
  EXPECT_EQ(other.at("/status/authenticated"), "");
  EXPECT_EQ(post(in("serviceaccounts/default/token"), "{'spec':{'expirationSeconds':5}}").status, 422u);
  EXPECT_EQ(post(in("serviceaccounts/nope/token"), "{}").status, 404u);
}

TEST_F(Api, UpdatesAndPreconditions) {
  const auto made = make_config_map("a", "1");
  const auto rv = made.at("/metadata/resourceVersion"), uid = made.at("/metadata/uid");
  const auto second = put(in("configmaps/a"), "{'metadata':{'name':'a','resourceVersion':'" + rv + "'},'data':{'k':'2'}}");
  EXPECT_EQ(second.status, 200u);
  EXPECT_NE(second.at("/metadata/resourceVersion"), rv);
  EXPECT_EQ(second.at("/metadata/uid"), uid);
  EXPECT_EQ(second.at("/metadata/creationTimestamp"), made.at("/metadata/creationTimestamp"));
  EXPECT_EQ(put(in("configmaps/a"), "{'metadata':{'name':'a','resourceVersion':'" + rv + "'}}").status, 409u);
  EXPECT_EQ(put(in("configmaps/a"), "{'metadata':{'name':'a','uid':'other'}}").status, 409u);
  // Nothing changed, nothing written.
  const auto same = put(in("configmaps/a"), "{'metadata':{'name':'a'},'data':{'k':'2'}}");
  EXPECT_EQ(same.status, 200u);
  const auto noop = patch(in("configmaps/a"), "{'data':{'k':'2'}}");
  EXPECT_EQ(noop.at("/metadata/resourceVersion"), same.at("/metadata/resourceVersion"));
  // PUT creates some kinds.
  const auto lease = "/apis/coordination.k8s.io/v1/namespaces/" + ns_ + "/leases/l";
  const auto created = put(lease, "{'metadata':{'name':'l'},'spec':{'holderIdentity':'me'}}");
  EXPECT_EQ(created.status, 201u) << created.body;
  EXPECT_EQ(put(lease, "{'metadata':{'name':'l'},'spec':{'holderIdentity':'you'}}").status, 422u) << "a lease wants its resourceVersion";
  const auto renewed = put(lease, "{'metadata':{'name':'l','resourceVersion':'" + created.at("/metadata/resourceVersion") + "'},'spec':{'holderIdentity':'you'}}");
  EXPECT_EQ(renewed.status, 200u);
  // Deletion with preconditions.
  EXPECT_EQ(del(in("configmaps/a"), "{'preconditions':{'uid':'other'}}").status, 409u);
  EXPECT_EQ(del(in("configmaps/a"), "{'preconditions':{'resourceVersion':'1'}}").status, 409u);
  const auto gone = del(in("configmaps/a"), "{'preconditions':{'uid':'" + uid + "'}}");
  EXPECT_EQ(gone.status, 200u);
  EXPECT_EQ(gone.at("/status"), "Success");
  EXPECT_EQ(gone.at("/details/name"), "a");
  EXPECT_EQ(gone.at("/details/kind"), "configmaps");
  EXPECT_EQ(gone.at("/details/uid"), uid);
  EXPECT_EQ(del(in("configmaps/a")).status, 404u);
}

TEST_F(Api, FinalizersHoldAnObject) {
  post(in("configmaps"), "{'metadata':{'name':'f','finalizers':['example.com/hold']}}");
  const auto marked = del(in("configmaps/f"));
  EXPECT_EQ(marked.status, 200u);
  EXPECT_NE(marked.at("/metadata/deletionTimestamp"), "");
  EXPECT_EQ(marked.at("/metadata/deletionGracePeriodSeconds"), "0");
  EXPECT_EQ(patch(in("configmaps/f"), "{'metadata':{'finalizers':['example.com/hold','example.com/more']}}").status, 422u);
  EXPECT_EQ(patch(in("configmaps/f"), "{'metadata':{'deletionTimestamp':null}}").at("/metadata/deletionTimestamp"),
            marked.at("/metadata/deletionTimestamp"));
  EXPECT_EQ(patch(in("configmaps/f"), "{'metadata':{'finalizers':null}}").status, 200u);
  EXPECT_EQ(get(in("configmaps/f")).status, 404u);
  // The policy becomes a finalizer for the garbage collector.
  for (const auto& [policy, finalizer, status] : {std::tuple("Foreground", "foregroundDeletion", 202u), {"Orphan", "orphan", 200u}}) {
    make_config_map("p");
    const auto a = del(in("configmaps/p"), std::string("{'propagationPolicy':'") + policy + "'}");
    EXPECT_EQ(a.status, status);
    EXPECT_EQ(a.at("/metadata/finalizers/0"), finalizer);
    // A background deletion afterwards takes it off again, and the object goes.
    EXPECT_EQ(del(in("configmaps/p"), "{'propagationPolicy':'Background'}").at("/status"), "Success");
  }
  EXPECT_EQ(del(in("configmaps/p"), "{'propagationPolicy':'Sideways'}").status, 422u);
}

TEST_F(Api, PodsAreDeletedGracefully) {
  const std::string pod = "{'metadata':{'name':'p'},'spec':{'containers':[{'name':'c','image':'i'}]}}";
  ASSERT_EQ(post(in("pods"), pod).status, 201u);
  const auto bound = post(in("pods/p/binding"), "{'metadata':{'annotations':{'a':'b'}},'target':{'kind':'Node','name':'n1'}}");
  EXPECT_EQ(bound.status, 201u) << bound.body;
  const auto after = get(in("pods/p"));
  EXPECT_EQ(after.at("/spec/nodeName"), "n1");
  EXPECT_EQ(after.at("/metadata/annotations/a"), "b");
  EXPECT_EQ(after.at("/status/conditions/0/type"), "PodScheduled");
  EXPECT_EQ(after.at("/status/conditions/0/status"), "True");
  EXPECT_EQ(after.at("/metadata/generation"), "1") << "binding is not a change of what was asked for";
  const auto again = post(in("pods/p/binding"), "{'target':{'kind':'Node','name':'n2'}}");
  EXPECT_EQ(again.status, 409u);
  EXPECT_THAT(again.at("/message"), HasSubstr("pod p is already assigned to node \"n1\""));

  const auto first = del(in("pods/p"));
  EXPECT_EQ(first.status, 200u);
  EXPECT_EQ(first.at("/metadata/deletionGracePeriodSeconds"), "30");
  EXPECT_NE(first.at("/metadata/deletionTimestamp"), "");
  EXPECT_EQ(del(in("pods/p"), "{'gracePeriodSeconds':60}").at("/metadata/deletionGracePeriodSeconds"), "30") << "never longer";
  EXPECT_EQ(del(in("pods/p"), "{'gracePeriodSeconds':5}").at("/metadata/deletionGracePeriodSeconds"), "5");
  EXPECT_EQ(get(in("pods/p")).status, 200u);
  EXPECT_EQ(del(in("pods/p"), "{'gracePeriodSeconds':0}").at("/status"), "Success");
  EXPECT_EQ(get(in("pods/p")).status, 404u);
  // Not scheduled: at once. Evicted: the same, with a reason on the way.
  ASSERT_EQ(post(in("pods"), pod).status, 201u);
  EXPECT_EQ(post(in("pods/p/eviction"), "{'apiVersion':'policy/v1','kind':'Eviction','metadata':{'name':'p'}}").status, 201u);
  EXPECT_EQ(get(in("pods/p")).status, 404u);
}

TEST_F(Api, StatusAndScaleAreApart) {
  const auto deployments = "/apis/apps/v1/namespaces/" + ns_ + "/deployments";
  const auto made = post(deployments, "{'metadata':{'name':'d'},'spec':{'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':{'a':'b'}},"
                                      "'spec':{'containers':[{'name':'c','image':'i'}]}}},'status':{'replicas':9}}");
  ASSERT_EQ(made.status, 201u) << made.body;
  EXPECT_EQ(made.at("/status/replicas"), "");
  EXPECT_EQ(made.at("/metadata/generation"), "1");
  const auto status = patch(deployments + "/d/status", "{'spec':{'replicas':7},'status':{'replicas':2}}");
  EXPECT_EQ(status.at("/status/replicas"), "2");
  EXPECT_EQ(status.at("/spec/replicas"), "1");
  EXPECT_EQ(status.at("/metadata/generation"), "1");
  const auto main = patch(deployments + "/d", "{'spec':{'replicas':7},'status':{'replicas':5}}");
  EXPECT_EQ(main.at("/status/replicas"), "2");
  EXPECT_EQ(main.at("/metadata/generation"), "2");
  const auto scale = get(deployments + "/d/scale");
  EXPECT_EQ(scale.at("/kind"), "Scale");
  EXPECT_EQ(scale.at("/apiVersion"), "autoscaling/v1");
  EXPECT_EQ(scale.at("/spec/replicas"), "7");
  EXPECT_EQ(scale.at("/status/replicas"), "2");
  EXPECT_EQ(scale.at("/status/selector"), "a=b");
  EXPECT_EQ(patch(deployments + "/d/scale", "{'spec':{'replicas':3}}").at("/spec/replicas"), "3");
  EXPECT_EQ(put(deployments + "/d/scale", "{'metadata':{'name':'d'},'spec':{'replicas':4}}").at("/spec/replicas"), "4");
  EXPECT_EQ(put(deployments + "/d/scale", "{'metadata':{'name':'d','resourceVersion':'1'},'spec':{'replicas':4}}").status, 409u);
  EXPECT_EQ(patch(deployments + "/d/scale", "{'spec':{'replicas':-1}}").status, 422u);
  EXPECT_EQ(get(deployments + "/d").at("/spec/replicas"), "4");
}

TEST_F(Api, ListsInPages) {
  for (int i = 0; i < 7; ++i) make_config_map("c" + std::to_string(i), "v", i % 2 ? "odd" : "even");
  const auto first = get(in("configmaps?limit=3"));
  EXPECT_EQ(first.at("/kind"), "ConfigMapList");
  EXPECT_EQ(first.json().at("items").as_array().size(), 3u);
  EXPECT_EQ(first.at("/metadata/remainingItemCount"), "4");
  const auto rv = first.at("/metadata/resourceVersion");
  make_config_map("c0a");  // after the first page was read: not part of this list
  del(in("configmaps/c5"));
  const auto second = get(in("configmaps?limit=3&continue=") + http::percent_encode(first.at("/metadata/continue")));
  EXPECT_EQ(second.at("/metadata/resourceVersion"), rv);
  EXPECT_EQ(second.at("/items/0/metadata/name"), "c3");
  const auto third = get(in("configmaps?limit=3&continue=") + http::percent_encode(second.at("/metadata/continue")));
  EXPECT_EQ(third.json().at("items").as_array().size(), 1u);
  EXPECT_EQ(third.at("/items/0/metadata/name"), "c6");
  EXPECT_EQ(third.at("/metadata/continue"), "");
  // With a selector pages are full all the same, and nothing is told of what remains.
  const auto odd = get(in("configmaps?limit=2&labelSelector=l%3Deven"));
  EXPECT_EQ(odd.json().at("items").as_array().size(), 2u);
  EXPECT_EQ(odd.at("/metadata/remainingItemCount"), "");
  const auto rest = get(in("configmaps?limit=5&labelSelector=l%3Deven&continue=") + http::percent_encode(odd.at("/metadata/continue")));
  EXPECT_EQ(rest.json().at("items").as_array().size(), 2u);
  EXPECT_EQ(get(in("configmaps?continue=garbage")).status, 400u);
  // Exactly as it was, at least as new as, and from the future.
  EXPECT_EQ(get(in("configmaps?resourceVersionMatch=Exact&resourceVersion=") + rv).json().at("items").as_array().size(), 7u);
  EXPECT_EQ(get(in("configmaps?resourceVersionMatch=NotOlderThan&resourceVersion=") + rv).json().at("items").as_array().size(), 7u);
  EXPECT_EQ(get(in("configmaps?resourceVersion=0")).json().at("items").as_array().size(), 7u);
  const auto future = get(in("configmaps?resourceVersion=999999999"));
  EXPECT_EQ(future.status, 504u);
  EXPECT_EQ(future.at("/details/causes/0/reason"), "ResourceVersionTooLarge");
  EXPECT_EQ(future.at("/details/retryAfterSeconds"), "1");
}

TEST_F(Api, FieldSelectors) {
  for (const auto* node : {"", "n1", "n2"}) {
    const std::string name = std::string("p") + node;
    post(in("pods"), "{'metadata':{'name':'" + name + "'},'spec':{'nodeName':'" + node + "','containers':[{'name':'c','image':'i'}]}}");
  }
  const auto names = [&](std::string selector) {
    std::string out;
    const auto listed = get(in("pods?fieldSelector=") + http::percent_encode(selector)).json();
    for (const auto& i : listed.at("items").as_array())
      out += (out.empty() ? "" : " ") + std::string(i.at("metadata").at("name").as_string());
    return out;
  };
  EXPECT_EQ(names("spec.nodeName=n1"), "pn1");
  EXPECT_EQ(names("spec.nodeName="), "p");
  EXPECT_EQ(names("spec.nodeName!=n1,status.phase!=Failed"), "p pn2");
  EXPECT_EQ(names("metadata.name=pn2"), "pn2");
  EXPECT_EQ(names("status.phase=Running"), "");
  const auto services = get("/api/v1/services?fieldSelector=spec.clusterIP%21%3DNone&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name");
  EXPECT_EQ(services.status, 200u) << services.body;  // what kube-proxy asks
  EXPECT_GE(services.json().at("items").as_array().size(), 1u);
}

TEST_F(Api, WatchFromListAndSelectors) {
  make_config_map("a", "1", "x");
  const auto rv = get(in("configmaps")).at("/metadata/resourceVersion");
  const auto events = watch(in("configmaps?watch=true&labelSelector=l%3Dx&resourceVersion=") + rv, 5, [&] {
    make_config_map("b", "1", "x");
    make_config_map("other", "1", "y");
    patch(in("configmaps/a"), "{'data':{'k':'2'}}");
    patch(in("configmaps/a"), "{'metadata':{'labels':{'l':'y'}}}");      // leaves the selector
    patch(in("configmaps/other"), "{'metadata':{'labels':{'l':'x'}}}");  // enters it
    del(in("configmaps/b"));
  });
  EXPECT_THAT(texts(events), testing::ElementsAre("ADDED b", "MODIFIED a", "DELETED a", "ADDED other", "DELETED b"));
}

TEST_F(Api, WatchWithoutVersionStartsWithWhatIsThere) {
  make_config_map("a");
  make_config_map("b");
  const auto events = watch(in("configmaps?watch=true"), 3, [&] { make_config_map("c"); });
  EXPECT_THAT(texts(events), testing::ElementsAre("ADDED a", "ADDED b", "ADDED c"));
  const auto one = watch(in("configmaps?watch=true&fieldSelector=metadata.name%3Db"), 2, [&] { del(in("configmaps/b")); });
  EXPECT_THAT(texts(one), testing::ElementsAre("ADDED b", "DELETED b"));
}

TEST_F(Api, InitialEventsEndWithABookmark) {
  make_config_map("a");
  const auto events = watch(in("configmaps?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"), 3,
                            [&] { make_config_map("b"); });
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(text(events[0]), "ADDED a");
  EXPECT_EQ(text(events[1]), "BOOKMARK");
  const auto& mark = events[1].at("object");
  EXPECT_EQ(mark.at("kind").as_string(), "ConfigMap");
  EXPECT_EQ(mark.at("metadata").at("annotations").at("k8s.io/initial-events-end").as_string(), "true");
  EXPECT_FALSE(mark.at("metadata").at("resourceVersion").as_string().empty());
  EXPECT_EQ(text(events[2]), "ADDED b");
}

TEST_F(Api, AWatchEndsInTimeWithALastBookmark) {
  const auto rv = get(in("configmaps")).at("/metadata/resourceVersion");
  make_config_map("elsewhere-too");
  post("/api/v1/namespaces/default/configmaps", "{'metadata':{'generateName':'x-'}}");
  const auto events = watch("/api/v1/namespaces/kube-public/configmaps?watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion=" + rv, 99);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(text(events[0]), "BOOKMARK");
  EXPECT_GT(std::stoll(std::string(events[0].at("object").at("metadata").at("resourceVersion").as_string())), std::stoll(rv));
}

TEST_F(Api, AWatchThatIsTooOldSaysSo) {
  make_config_map("a");
  server().restart();  // the cache begins with what is there; what happened before is not in its history
  client_ = make("again", {"system:masters"});
  const auto events = watch(in("configmaps?watch=true&resourceVersion=1"), 1);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].at("type").as_string(), "ERROR");
  EXPECT_EQ(events[0].at("object").at("code").as_int64(), 410);
  EXPECT_EQ(events[0].at("object").at("reason").as_string(), "Expired");
}

TEST_F(Api, TablesAndMetadataOnly) {
  make_config_map("a");
  const auto table = get(in("configmaps"), "application/json;as=Table;v=v1;g=meta.k8s.io");
  EXPECT_EQ(table.at("/kind"), "Table");
  EXPECT_EQ(table.at("/apiVersion"), "meta.k8s.io/v1");
  EXPECT_EQ(table.at("/columnDefinitions/0/name"), "Name");
  EXPECT_EQ(table.at("/columnDefinitions/0/format"), "name");
  EXPECT_EQ(table.at("/rows/0/cells/0"), "a");
  EXPECT_EQ(table.at("/rows/0/cells/1"), "1");
  EXPECT_EQ(table.at("/rows/0/object/kind"), "PartialObjectMetadata");
  EXPECT_EQ(table.at("/rows/0/object/data"), "");
  EXPECT_EQ(get(in("configmaps?includeObject=Object"), "application/json;as=Table;v=v1;g=meta.k8s.io").at("/rows/0/object/data/k"), "v");
  EXPECT_EQ(get(in("configmaps?includeObject=None"), "application/json;as=Table;v=v1;g=meta.k8s.io").at("/rows/0/object"), "null");
  const auto events = watch(in("configmaps?watch=true"), 2, [&] { make_config_map("b"); }, "application/json;as=Table;v=v1;g=meta.k8s.io");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_TRUE(events[0].at("object").at("columnDefinitions").is_array());
  EXPECT_TRUE(events[1].at("object").at("columnDefinitions").is_null());
  EXPECT_EQ(events[1].at("object").at("rows").at(0).at("cells").at(0).as_string(), "b");

  const auto partial = get(in("configmaps"), "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
  EXPECT_EQ(partial.at("/kind"), "PartialObjectMetadataList");
  EXPECT_EQ(partial.at("/items/0/metadata/name"), "a");
  EXPECT_EQ(partial.at("/items/0/data"), "");
  const auto one = get(in("configmaps/a"), "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
  EXPECT_EQ(one.at("/kind"), "PartialObjectMetadata");
  EXPECT_EQ(one.at("/apiVersion"), "meta.k8s.io/v1");
}

TEST_F(Api, Protobuf) {
  constexpr char type[] = "application/vnd.kubernetes.protobuf";
  corev1::ConfigMap c;
  c.mutable_metadata()->set_name("proto");
  (*c.mutable_data())["k"] = "v";
  http::Request r;
  r.method = "POST";
  r.target = in("configmaps");
  r.headers.set("Content-Type", type);
  r.headers.set("Accept", std::string(type) + ",application/json");
  r.body = kube::to_protobuf(c, "v1", "ConfigMap");
  const auto made = send_raw(r);
  EXPECT_EQ(made.status, 201u);
  EXPECT_EQ(made.headers.value_or("Content-Type", ""), type);
  corev1::ConfigMap back;
  ASSERT_TRUE(kube::from_protobuf(made.body, back));
  EXPECT_EQ(back.data().at("k"), "v");
  EXPECT_FALSE(back.metadata().uid().empty());
  const auto listed = get(in("configmaps"), type);
  corev1::ConfigMapList list;
  ASSERT_TRUE(kube::from_protobuf(listed.body, list));
  ASSERT_EQ(list.items_size(), 1);
  EXPECT_EQ(list.items(0).metadata().resourceversion(), back.metadata().resourceversion());
  EXPECT_FALSE(list.metadata().resourceversion().empty());
  const auto status = get(in("configmaps/nope"), type);
  metav1::Status s;
  ASSERT_TRUE(kube::from_protobuf(status.body, s));
  EXPECT_EQ(s.reason(), "NotFound");
  // A watch in frames of four bytes of length.
  std::unique_ptr<http::ResponseStream> stream;
  std::string bytes;
  loop_.run([&]() -> Task<> {
    http::Request w;
    w.target = in("configmaps?watch=true");
    w.headers.set("Accept", type);
    auto opened = co_await client_->open(std::move(w), std::chrono::seconds(10));
    if (!opened) throw std::runtime_error(opened.error().message);
    stream = std::move(*opened);
    while (bytes.size() < 4) {
      auto piece = co_await stream->read_some(std::chrono::seconds(10));
      if (!piece) throw std::runtime_error(piece.error().message);
      bytes += *piece;
    }
  });
  EXPECT_EQ(stream->headers().value_or("Content-Type", ""), std::string(type) + ";stream=watch");
  ASSERT_GE(bytes.size(), 4u);
  const std::size_t size = static_cast<unsigned char>(bytes[2]) << 8 | static_cast<unsigned char>(bytes[3]);
  ASSERT_EQ(bytes.size(), size + 4);
  metav1::WatchEvent event;
  ASSERT_TRUE(event.ParseFromString(bytes.substr(4)));
  EXPECT_EQ(event.type(), "ADDED");
  ASSERT_TRUE(kube::from_protobuf(event.object().raw(), back));
  EXPECT_EQ(back.metadata().name(), "proto");
  stream.reset();
}

TEST_F(Api, FieldValidation) {
  const auto body = "{'metadata':{'name':'v'},'datta':{'a':'b'}}";
  const auto strict = post(in("configmaps?fieldValidation=Strict"), body);
  EXPECT_EQ(strict.status, 400u);
  EXPECT_EQ(strict.at("/message"), "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"datta\"");
  const auto warned = post(in("configmaps?dryRun=All"), body);
  EXPECT_EQ(warned.status, 201u);
  EXPECT_EQ(warned.headers.value_or("Warning", ""), "299 - \"unknown field \\\"datta\\\"\"");
  const auto ignored = post(in("configmaps?fieldValidation=Ignore&dryRun=All"), body);
  EXPECT_FALSE(ignored.headers.get("Warning"));
  const auto twice = post(in("configmaps?fieldValidation=Strict"), "{'metadata':{'name':'v'},'data':{'a':'b'},'data':{'a':'c'}}");
  EXPECT_EQ(twice.status, 400u);
  EXPECT_THAT(twice.at("/message"), HasSubstr("duplicate field \"data\""));
  const auto wrong = post(in("configmaps"), "{'metadata':{'name':'v'},'data':{'a':5}}");
  EXPECT_EQ(wrong.status, 400u);
  EXPECT_THAT(wrong.at("/message"), HasSubstr("data[a]"));
  EXPECT_EQ(get(in("configmaps/v")).status, 404u);
}

TEST_F(Api, DeleteCollection) {
  for (int i = 0; i < 4; ++i) make_config_map("c" + std::to_string(i), "v", i < 2 ? "x" : "y");
  const auto gone = del(in("configmaps?labelSelector=l%3Dx"));
  EXPECT_EQ(gone.status, 200u);
  EXPECT_EQ(gone.at("/kind"), "ConfigMapList");
  EXPECT_EQ(gone.json().at("items").as_array().size(), 2u);
  EXPECT_EQ(get(in("configmaps")).json().at("items").as_array().size(), 2u);
  del(in("configmaps"));
  EXPECT_EQ(get(in("configmaps")).json().at("items").as_array().size(), 0u);
}

TEST_F(Api, EventsHaveTwoFaces) {
  const auto v1 = "/apis/events.k8s.io/v1/namespaces/" + ns_ + "/events";
  const auto made = post(v1, "{'metadata':{'name':'e'},'eventTime':'2026-01-01T00:00:00.000000Z','reportingController':'x.io/c','reportingInstance':'i',"
                             "'action':'Do','reason':'Because','regarding':{'kind':'Pod','namespace':'" + ns_ + "','name':'p'},'note':'hello','type':'Normal'}");
  ASSERT_EQ(made.status, 201u) << made.body;
  const auto core = get(in("events/e"));
  EXPECT_EQ(core.at("/involvedObject/name"), "p");
  EXPECT_EQ(core.at("/message"), "hello");
  EXPECT_EQ(core.at("/reportingComponent"), "x.io/c");
  EXPECT_EQ(get(in("events?fieldSelector=involvedObject.name%3Dp,reason%3DBecause")).json().at("items").as_array().size(), 1u);
  EXPECT_EQ(get(v1 + "?fieldSelector=regarding.name%3Dp").json().at("items").as_array().size(), 1u);
  EXPECT_EQ(get(v1 + "?fieldSelector=regarding.name%3Dq").json().at("items").as_array().size(), 0u);
  EXPECT_EQ(post(in("events"), "{'metadata':{'name':'old'},'involvedObject':{'kind':'Pod','namespace':'" + ns_ + "','name':'q'},'message':'m'}").status, 201u);
  EXPECT_EQ(get(v1 + "/old").at("/note"), "m");
  EXPECT_EQ(get(v1 + "/old").at("/kind"), "Event");
  EXPECT_EQ(get(v1 + "/old").at("/apiVersion"), "events.k8s.io/v1");
  EXPECT_EQ(post(v1, "{'metadata':{'name':'bad'},'regarding':{'namespace':'" + ns_ + "'}}").status, 422u);
}

TEST_F(Api, ServicesShareNumbersOnlyWithThemselves) {
  const auto two = post(in("services"), "{'metadata':{'name':'dns'},'spec':{'type':'NodePort','ports':[{'name':'t','port':53,'protocol':'TCP'},"
                                        "{'name':'u','port':53,'protocol':'UDP'}]}}");
  ASSERT_EQ(two.status, 201u) << two.body;
  EXPECT_EQ(two.at("/spec/ports/0/nodePort"), two.at("/spec/ports/1/nodePort")) << "one number for both protocols";
  const auto port = two.at("/spec/ports/0/nodePort");
  const auto other = post(in("services"), "{'metadata':{'name':'thief'},'spec':{'type':'NodePort','ports':[{'port':80,'protocol':'UDP','nodePort':" + port + "}]}}");
  EXPECT_EQ(other.status, 422u);
  EXPECT_EQ(other.at("/details/causes/0/field"), "spec.ports[0].nodePort");
  // A failed write gives back what it took: the address of the refused service is free again.
  const auto half = post(in("services"), "{'metadata':{'name':'half'},'spec':{'type':'NodePort','clusterIP':'10.96.77.77','ports':[{'port':80,'nodePort':" + port + "}]}}");
  EXPECT_EQ(half.status, 422u);
  EXPECT_EQ(post(in("services"), "{'metadata':{'name':'whole'},'spec':{'clusterIP':'10.96.77.77','ports':[{'port':80}]}}").status, 201u);
  // NodePort to ClusterIP and back; the number may be taken by others in between.
  EXPECT_EQ(patch(in("services/dns"), "{'spec':{'type':'ClusterIP'}}").at("/spec/ports/0/nodePort"), "");
  EXPECT_EQ(post(in("services"), "{'metadata':{'name':'heir'},'spec':{'type':'NodePort','ports':[{'port':80,'nodePort':" + port + "}]}}").status, 201u);
  const auto back = patch(in("services/dns"), "{'spec':{'type':'NodePort'}}");
  EXPECT_NE(back.at("/spec/ports/0/nodePort"), port);
  EXPECT_NE(back.at("/spec/ports/0/nodePort"), "");
  // ExternalName gives the address up, coming back takes a new one.
  const auto external = patch(in("services/whole"), "{'spec':{'type':'ExternalName','externalName':'example.com'}}");
  EXPECT_EQ(external.at("/spec/clusterIP"), "") << external.body;
  EXPECT_EQ(post(in("services"), "{'metadata':{'name':'next'},'spec':{'clusterIP':'10.96.77.77','ports':[{'port':80}]}}").status, 201u);
  const auto returned = patch(in("services/whole"), "{'spec':{'type':'ClusterIP'}}");
  EXPECT_NE(returned.at("/spec/clusterIP"), "");
  EXPECT_NE(returned.at("/spec/clusterIP"), "10.96.77.77");
  // Headless has none; dry runs take none.
  EXPECT_EQ(post(in("services"), "{'metadata':{'name':'h'},'spec':{'clusterIP':'None','selector':{'a':'b'},'ports':[{'port':80}]}}").at("/spec/clusterIP"), "None");
  EXPECT_EQ(post(in("services?dryRun=All"), "{'metadata':{'name':'dry'},'spec':{'clusterIP':'10.96.88.88','ports':[{'port':80}]}}").status, 201u);
  EXPECT_EQ(post(in("services"), "{'metadata':{'name':'wet'},'spec':{'clusterIP':'10.96.88.88','ports':[{'port':80}]}}").status, 201u);
  EXPECT_EQ(del(in("services/wet")).status, 200u);
  EXPECT_EQ(post(in("services"), "{'metadata':{'name':'wet2'},'spec':{'clusterIP':'10.96.88.88','ports':[{'port':80}]}}").status, 201u) << "released by deletion";
  // A health check port comes with externalTrafficPolicy Local.
  const auto balancer = post(in("services"), "{'metadata':{'name':'lb'},'spec':{'type':'LoadBalancer','externalTrafficPolicy':'Local','ports':[{'port':80}]}}");
  EXPECT_NE(balancer.at("/spec/healthCheckNodePort"), "");
  EXPECT_EQ(balancer.at("/spec/allocateLoadBalancerNodePorts"), "true");
  EXPECT_EQ(patch(in("services/lb"), "{'spec':{'externalTrafficPolicy':'Cluster'}}").at("/spec/healthCheckNodePort"), "");
  const auto address = patch(in("services/lb/status"), "{'status':{'loadBalancer':{'ingress':[{'ip':'192.0.2.7'}]}}}");
  EXPECT_EQ(address.at("/status/loadBalancer/ingress/0/ipMode"), "VIP");
}

TEST_F(Api, DiscoveryOldAndNew) {
  EXPECT_EQ(get("/api").at("/versions/0"), "v1");
  EXPECT_EQ(get("/apis").at("/kind"), "APIGroupList");
  EXPECT_EQ(get("/apis/apps").at("/preferredVersion/groupVersion"), "apps/v1");
  EXPECT_EQ(get("/api/v1").at("/kind"), "APIResourceList");
  EXPECT_THAT(get("/apis/apps/v1").body, HasSubstr("deployments/scale"));
  constexpr char accept[] = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
  const auto a = get("/apis", accept);
  EXPECT_EQ(a.headers.value_or("Content-Type", ""), "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
  EXPECT_EQ(a.at("/kind"), "APIGroupDiscoveryList");
  const auto tag = std::string(a.headers.value_or("ETag", ""));
  EXPECT_FALSE(tag.empty());
  EXPECT_EQ(send("GET", "/apis", "", {{"Accept", accept}, {"If-None-Match", tag}}).status, 304u);
  EXPECT_EQ(get("/api", accept).at("/items/0/versions/0/version"), "v1");
  const auto index = get("/openapi/v3");
  const auto url = index.at("/paths/apis~1apps~1v1/serverRelativeURL");
  EXPECT_THAT(url, HasSubstr("/openapi/v3/apis/apps/v1?hash="));
  EXPECT_THAT(get(url).body, HasSubstr("x-kubernetes-group-version-kind"));
  EXPECT_EQ(get("/openapi/v3/apis/apps/v1?hash=old").status, 301u);
  EXPECT_EQ(get("/openapi/v2").at("/swagger"), "2.0");
  const auto protobuf = get("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
  EXPECT_EQ(protobuf.headers.value_or("Content-Type", ""), "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
}

// A definition of cars in two versions; `more` goes into the schema of spec.
std::string cars(const std::string& group, const std::string& more, const std::string& conversion = "'strategy':'None'") {
  const auto version = [&](const std::string& name, bool storage) {
    return "{'name':'" + name + "','served':true,'storage':" + (storage ? "true" : "false") +
           ",'selectableFields':[{'jsonPath':'.spec.color'}],'schema':{'openAPIV3Schema':{'type':'object','properties':{'spec':{'type':'object',"
           "'properties':{'color':{'type':'string'}" + more + "}}}}}}";
  };
  return "{'apiVersion':'apiextensions.k8s.io/v1','kind':'CustomResourceDefinition','metadata':{'name':'cars." + group + "'},'spec':{'group':'" + group +
         "','scope':'Namespaced','names':{'kind':'Car','plural':'cars'},'conversion':{" + conversion + "},'versions':[" + version("v1beta1", false) + "," +
         version("v1", true) + "]}}";
}
constexpr char kDefinitions[] = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

class CustomApi : public Api {
 protected:
  void define(const std::string& group, const std::string& more = {}, const std::string& conversion = "'strategy':'None'") {
    const auto made = post(kDefinitions, cars(group, more, conversion));
    ASSERT_EQ(made.status, 201u) << made.body;
    ASSERT_TRUE(until([&] { return get(std::string(kDefinitions) + "/cars." + group).body.find("the initial names have been accepted") != std::string::npos; }));
  }
  bool until(const std::function<bool()>& f) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!f()) {
      if (std::chrono::steady_clock::now() > end) return false;
      loop_.idle(std::chrono::milliseconds(5));
    }
    return true;
  }
  std::string at(const std::string& group, const std::string& version, const std::string& rest = {}) const {
    return "/apis/" + group + "/" + version + "/namespaces/" + ns_ + "/cars" + rest;
  }
};

TEST_F(CustomApi, JsonIsTheOnlyForm) {
  define("json.example.com");
  ASSERT_EQ(post(at("json.example.com", "v1"), "{'kind':'Car','apiVersion':'json.example.com/v1','metadata':{'name':'a'},'spec':{'color':'red'}}").status, 201u);
  EXPECT_EQ(get(at("json.example.com", "v1", "/a"), "application/vnd.kubernetes.protobuf").status, 406u);
  const auto either = get(at("json.example.com", "v1"), "application/vnd.kubernetes.protobuf,application/json");
  EXPECT_EQ(either.status, 200u);
  EXPECT_EQ(either.headers.value_or("Content-Type", ""), "application/json");
  EXPECT_EQ(either.at("/items/0/kind"), "Car");
  EXPECT_EQ(either.at("/kind"), "CarList");
  EXPECT_EQ(send("POST", at("json.example.com", "v1"), "x", {{"Content-Type", "application/vnd.kubernetes.protobuf"}}).status, 415u);
  EXPECT_EQ(patch(at("json.example.com", "v1", "/a"), "{'spec':{'color':'blue'}}", "strategic-merge-patch").status, 415u);
  EXPECT_NE(get(at("json.example.com", "v1", "/a"), "application/yaml").body.find("color: red"), std::string::npos);
  const auto partial = get(at("json.example.com", "v1"), "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
  EXPECT_EQ(partial.at("/items/0/metadata/name"), "a");
  EXPECT_EQ(partial.at("/items/0/spec"), "");
}

TEST_F(CustomApi, VersionsAreTheSameObjects) {
  define("versions.example.com");
  ASSERT_EQ(post(at("versions.example.com", "v1beta1"), "{'metadata':{'name':'a'},'spec':{'color':'red'}}").status, 201u);
  EXPECT_EQ(get(at("versions.example.com", "v1", "/a")).at("/apiVersion"), "versions.example.com/v1");
  EXPECT_EQ(get(at("versions.example.com", "v1beta1", "/a")).at("/apiVersion"), "versions.example.com/v1beta1");
  const auto group = get("/apis/versions.example.com");
  EXPECT_EQ(group.at("/preferredVersion/version"), "v1");
  EXPECT_EQ(group.at("/versions/1/version"), "v1beta1");
  EXPECT_EQ(get("/openapi/v3").at("/paths/apis~1versions.example.com~1v1") == "", false);
  EXPECT_EQ(get("/openapi/v3/apis/versions.example.com/v1").at("/components/schemas/com.example.versions.v1.Car/properties/spec/properties/color/type"), "string");
  // With a webhook between the versions, that of the store is served and no other.
  define("webhook.example.com", "", "'strategy':'Webhook','webhook':{'clientConfig':{'url':'https://x.example.com'},'conversionReviewVersions':['v1']}");
  EXPECT_EQ(get(at("webhook.example.com", "v1")).status, 200u);
  EXPECT_EQ(get(at("webhook.example.com", "v1beta1")).status, 404u);
}

TEST_F(CustomApi, WatchesSelectorsAndUpdates) {
  define("watch.example.com");
  const auto car = [](const std::string& name, const std::string& color) { return "{'metadata':{'name':'" + name + "'},'spec':{'color':'" + color + "'}}"; };
  ASSERT_EQ(post(at("watch.example.com", "v1"), car("a", "red")).status, 201u);
  const auto list = get(at("watch.example.com", "v1"));
  const auto events = watch(at("watch.example.com", "v1", "?watch=true&resourceVersion=" + list.at("/metadata/resourceVersion")), 3, [&] {
    post(at("watch.example.com", "v1"), car("b", "blue"));
    patch(at("watch.example.com", "v1", "/a"), "{'spec':{'color':'blue'}}");
    del(at("watch.example.com", "v1", "/b"));
  });
  EXPECT_EQ(texts(events), (std::vector<std::string>{"ADDED b", "MODIFIED a", "DELETED b"}));
  EXPECT_EQ(std::string(events[1].at("object").at("apiVersion").as_string()), "watch.example.com/v1");
  ASSERT_EQ(post(at("watch.example.com", "v1"), car("c", "green")).status, 201u);
  const auto green = get(at("watch.example.com", "v1", "?fieldSelector=spec.color=green"));
  EXPECT_EQ(green.at("/items/0/metadata/name"), "c");
  EXPECT_EQ(green.at("/items/1"), "");
  EXPECT_EQ(get(at("watch.example.com", "v1", "?fieldSelector=spec.size=1")).status, 400u);
  const auto now = get(at("watch.example.com", "v1", "/c"));
  EXPECT_EQ(put(at("watch.example.com", "v1", "/c"), "{'metadata':{'name':'c','resourceVersion':'1'},'spec':{'color':'x'}}").status, 409u);
  EXPECT_EQ(put(at("watch.example.com", "v1", "/c"),
                "{'metadata':{'name':'c','resourceVersion':'" + now.at("/metadata/resourceVersion") + "'},'spec':{'color':'x'}}").status, 200u);
  EXPECT_EQ(put(at("watch.example.com", "v1", "/d"), car("d", "x")).status, 404u) << "a PUT makes no new object";
}

TEST_F(CustomApi, ADefinitionThatChangesEndsItsWatches) {
  define("change.example.com");
  ASSERT_EQ(post(at("change.example.com", "v1"), "{'metadata':{'name':'a'},'spec':{'color':'red','size':3}}").status, 201u);
  EXPECT_EQ(get(at("change.example.com", "v1", "/a")).at("/spec/size"), "") << "pruned";
  const auto events = watch(at("change.example.com", "v1", "?watch=true"), 5, [&] {
    const auto changed = patch(std::string(kDefinitions) + "/cars.change.example.com", cars("change.example.com", ",'size':{'type':'integer','default':7}"));
    EXPECT_EQ(changed.status, 200u) << changed.body;
  });
  EXPECT_EQ(texts(events), (std::vector<std::string>{"ADDED a"})) << "then it ends, and the client resumes";
  EXPECT_TRUE(until([&] { return get(at("change.example.com", "v1", "/a")).at("/spec/size") == "7"; })) << "what is read gets the new default";
  // What people do wrong with definitions.
  EXPECT_EQ(patch(std::string(kDefinitions) + "/cars.change.example.com", "{'spec':{'scope':'Cluster'}}").at("/message"),
            "CustomResourceDefinition.apiextensions.k8s.io \"cars.change.example.com\" is invalid: spec.scope: Invalid value: \"Cluster\": field is immutable");
  auto other = cars("change.example.com", "");
  for (auto p = other.find("'plural':'cars'"); p != std::string::npos; p = other.find("'plural':'cars'")) other.replace(p, 15, "'plural':'autos'");
  other.replace(other.find("'name':'cars."), 13, "'name':'autos.");
  ASSERT_EQ(post(kDefinitions, other).status, 201u);
  EXPECT_TRUE(until([&] { return get(std::string(kDefinitions) + "/autos.change.example.com").body.find("\\\"car\\\" is already in use") != std::string::npos; }))
      << get(std::string(kDefinitions) + "/autos.change.example.com").body;
  EXPECT_EQ(get("/apis/change.example.com/v1/autos").status, 404u);
}

TEST_F(CustomApi, TheClientListsAndFollowsThem) {
  define("client.example.com");
  ASSERT_EQ(post(at("client.example.com", "v1"), "{'metadata':{'name':'a'},'spec':{'color':'red'}}").status, 201u);
  const auto config = kube::load_kubeconfig(server().kubeconfig());
  ASSERT_TRUE(config);
  const auto client = kube::make_client(loop_.executor(), *config, "test");
  ASSERT_TRUE(client);
  const auto kind = kube::make_custom_kind({"client.example.com", "v1", "Car", "cars", "car"});
  loop_.run([&]() -> Task<> {
    const kube::ListOptions all;
    auto listed = fairlead::test::value(co_await (*client)->list_of(*kind, ns_, all));
    if (listed.items.size() != 1) throw std::runtime_error("one car");
    auto& car = static_cast<kube::CustomObject&>(*listed.items[0]);
    if (kube::member(car, "spec") != json::value{{"color", "red"}}) throw std::runtime_error("its spec");
    kube::set_member(car, "spec", json::value{{"color", "blue"}});
    kube::CustomObject updated;
    auto done = co_await (*client)->update_into(*kind, car, "", updated);
    fairlead::test::value(std::move(done), "update");
    if (updated.metadata().generation() != 2) throw std::runtime_error("generation");
  });
  const auto informer = kube::make_informer_core(*client, *kind, {});
  informer->start();
  EXPECT_TRUE(until([&] { return informer->has_synced() && informer->all().size() == 1; }));
  ASSERT_EQ(post(at("client.example.com", "v1"), "{'metadata':{'name':'b'}}").status, 201u);
  EXPECT_TRUE(until([&] { return informer->get(ns_ + "/b") != nullptr; }));
  loop_.run([&]() -> Task<> { co_await informer->stop(); });
}

TEST(CustomResources, SurviveARestart) {
  TestServer s;
  const auto config = s.kubeconfig();
  const auto made = run_shell(config, "kubectl apply -f deploy/lb-crds.yaml && kubectl wait crd/communities.metallb.io --for=condition=Established --timeout=10s && "
                                      "kubectl apply -f -", "apiVersion: metallb.io/v1beta1\nkind: Community\nmetadata: {name: c}\nspec: {communities: [{name: a, value: '1:2'}]}\n");
  ASSERT_EQ(made.exit_code, 0) << made.all();
  s.restart();
  EXPECT_EQ(run_shell(config, "kubectl get community c -o jsonpath='{.spec.communities[0].value}'").out, "1:2") << "served from the first request on";
}

TEST_F(Api, AccessReviews) {
  const auto ask = [&](const std::string& spec) { return post("/apis/authorization.k8s.io/v1/subjectaccessreviews", "{'spec':" + spec + "}"); };
  EXPECT_EQ(ask("{'user':'system:kube-scheduler','resourceAttributes':{'verb':'list','resource':'nodes'}}").at("/status/allowed"), "true");
  EXPECT_EQ(ask("{'user':'eve','resourceAttributes':{'verb':'list','resource':'nodes'}}").at("/status/allowed"), "false");
  EXPECT_EQ(ask("{'resourceAttributes':{'verb':'list','resource':'nodes'}}").status, 422u);
  EXPECT_EQ(ask("{'user':'eve'}").status, 422u);
}

TEST_F(Api, ManyWritersOneWinnerEach) {
  make_config_map("counter", "0");
  // Patches without a version are retried by the server: none is lost.
  std::vector<std::shared_ptr<http::Client>> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(make("c" + std::to_string(i), {"system:masters"}));
  int done = 0, failed = 0;
  loop_.run([&]() -> Task<> {
    const auto executor = co_await net::this_coro::executor;
    for (int i = 0; i < 8; ++i) {
      auto one = [](std::shared_ptr<http::Client> client, std::string target, int who, int* finished, int* bad) -> Task<> {
        for (int n = 0; n < 5; ++n) {
          http::Request r;
          r.method = "PATCH";
          r.target = target;
          r.headers.set("Content-Type", "application/merge-patch+json");
          r.body = fmt::format(R"({{"data":{{"w{}-{}":"x"}}}})", who, n);
          auto got = co_await client->request(std::move(r), std::chrono::seconds(20));
          if (!got || got->status != 200) ++*bad;
        }
        ++*finished;
      };
      net::co_spawn(executor, one(clients[i], in("configmaps/counter"), i, &done, &failed), net::detached);
    }
    while (done < 8) {
      auto slept = co_await sleep_for(std::chrono::milliseconds(5));
      (void)slept;
    }
  });
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(get(in("configmaps/counter")).json().at("data").as_object().size(), 41u);
}

}  // namespace
}  // namespace fairlead::apiserver::test
