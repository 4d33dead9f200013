// Custom resources without a server: schemas as tables of what they say about objects, definitions and their faults, paths of
// columns, and the form in the store. The wording is upstream's, because kubectl prints it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "controlplane/apiserver/custom/definition.h"
#include "controlplane/apiserver/custom/strategies.h"
#include "controlplane/apiserver/registry/strategies.h"
#include "controlplane/apiserver/storage/value.h"
#include "kube/codec.h"

namespace fairlead::apiserver::custom {
namespace {

namespace json = boost::json;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using Texts = std::vector<std::string>;

// Single quotes make JSON readable here.
json::value value(std::string text) {
  std::replace(text.begin(), text.end(), '\'', '"');
  auto v = kube::parse_json(text);
  EXPECT_TRUE(v) << text;
  return v ? std::move(*v) : json::value();
}
std::string text(const json::value& v) {
  auto t = kube::to_json(kube::sorted(v));
  std::replace(t.begin(), t.end(), '"', '\'');
  return t;
}
Texts texts(const field::ErrorList& e) {
  Texts out;
  for (const auto& x : e) out.push_back(x.text());
  return out;
}

Schema compiled(const std::string& properties) {
  field::ErrorList errors;
  auto s = Schema::compile(value("{'type':'object','properties':{'spec':{'type':'object','properties':{" + properties + "}}}}"),
                           field::Path("schema"), errors);
  EXPECT_THAT(texts(errors), ElementsAre()) << properties;
  return s;
}

TEST(Schema, PrunesAndDefaults) {
  struct Row {
    const char* properties;
    const char* before;
    const char* after;
    Texts unknown;
  };
  for (const Row& r : std::vector<Row>{
           {"'a':{'type':'string'}", "{'spec':{'a':'x','b':1},'more':2}", "{'spec':{'a':'x'}}",
            {"unknown field \"spec.b\"", "unknown field \"more\""}},
           {"'a':{'type':'integer','default':7}", "{'spec':{}}", "{'spec':{'a':7}}", {}},
           {"'a':{'type':'integer','default':7}", "{'spec':{'a':null}}", "{'spec':{'a':7}}", {}},
           {"'a':{'type':'integer','default':7,'nullable':true}", "{'spec':{'a':null}}", "{'spec':{'a':null}}", {}},
           {"'a':{'type':'integer','default':7}", "{}", "{}", {}},  // defaults do not make their parents
           {"'a':{'type':'object','default':{},'properties':{'b':{'type':'string','default':'x'}}}", "{'spec':{}}", "{'spec':{'a':{'b':'x'}}}", {}},
           {"'a':{'type':'array','items':{'type':'object','properties':{'b':{'type':'string','default':'x'}}}}",
            "{'spec':{'a':[{'c':1},{'b':'y'}]}}", "{'spec':{'a':[{'b':'x'},{'b':'y'}]}}", {"unknown field \"spec.a[0].c\""}},
           {"'a':{'type':'object','additionalProperties':{'type':'object','properties':{'b':{'type':'string'}}}}",
            "{'spec':{'a':{'k':{'b':'x','c':1}}}}", "{'spec':{'a':{'k':{'b':'x'}}}}", {"unknown field \"spec.a.k.c\""}},
           {"'a':{'type':'object','x-kubernetes-preserve-unknown-fields':true,'properties':{'b':{'type':'object','properties':{}}}}",
            "{'spec':{'a':{'k':1,'b':{'c':2}}}}", "{'spec':{'a':{'b':{},'k':1}}}", {"unknown field \"spec.a.b.c\""}},
           {"'a':{'type':'object','x-kubernetes-embedded-resource':true,'properties':{'spec':{'type':'object'}}}",
            "{'spec':{'a':{'apiVersion':'v1','kind':'K','metadata':{'name':'n'},'x':1}}}",
            "{'spec':{'a':{'apiVersion':'v1','kind':'K','metadata':{'name':'n'}}}}", {"unknown field \"spec.a.x\""}},
       }) {
    const auto schema = compiled(r.properties);
    auto v = value(r.before);
    Texts unknown;
    schema.prune(v.as_object(), &unknown);
    schema.apply_defaults(v.as_object());
    EXPECT_EQ(text(v), r.after) << r.properties;
    EXPECT_THAT(unknown, ::testing::UnorderedElementsAreArray(r.unknown)) << r.properties;
    auto again = v;
    schema.prune(again.as_object(), nullptr);
    schema.apply_defaults(again.as_object());
    EXPECT_EQ(text(again), text(v)) << "what is stored is not changed by being read again";
  }
}

TEST(Schema, Validates) {
  struct Row {
    const char* properties;
    const char* spec;
    Texts want;
  };
  for (const Row& r : std::vector<Row>{
           {"'a':{'type':'integer'}", "{'a':'x'}", {"spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\""}},
           {"'a':{'type':'integer'}", "{'a':1.5}", {"spec.a: Invalid value: \"number\": spec.a in body must be of type integer: \"number\""}},
           {"'a':{'type':'integer'}", "{'a':2.0}", {}},
           {"'a':{'type':'number'}", "{'a':1}", {}},
           {"'a':{'type':'string'}", "{'a':null}", {"spec.a: Invalid value: \"null\": spec.a in body must be of type string: \"null\""}},
           {"'a':{'type':'string','nullable':true}", "{'a':null}", {}},
           {"'a':{'type':'object','required':['b'],'properties':{'b':{'type':'string'}}}", "{'a':{}}", {"spec.a.b: Required value"}},
           {"'a':{'type':'string','enum':['x','y']}", "{'a':'z'}", {"spec.a: Unsupported value: \"z\": supported values: \"x\", \"y\""}},
           {"'a':{'type':'string','pattern':'^[a-z]+$'}", "{'a':'A'}", {"spec.a: Invalid value: \"A\": spec.a in body should match '^[a-z]+$'"}},
           {"'a':{'type':'integer','minimum':1,'maximum':16384}", "{'a':0}",
            {"spec.a: Invalid value: 0: spec.a in body should be greater than or equal to 1"}},
           {"'a':{'type':'integer','minimum':1,'maximum':16384}", "{'a':16385}",
            {"spec.a: Invalid value: 16385: spec.a in body should be less than or equal to 16384"}},
           {"'a':{'type':'integer','format':'int32','minimum':0,'maximum':4294967295}", "{'a':4200000000}", {}},  // AS numbers
           {"'a':{'type':'number','minimum':0,'exclusiveMinimum':true}", "{'a':0}",
            {"spec.a: Invalid value: 0: spec.a in body should be greater than 0"}},
           {"'a':{'type':'integer','multipleOf':5}", "{'a':7}", {"spec.a: Invalid value: 7: spec.a in body should be a multiple of 5"}},
           {"'a':{'type':'string','minLength':2}", "{'a':'\xC3\xBC'}", {"spec.a: Invalid value: \"\xC3\xBC\": spec.a in body should be at least 2 chars long"}},
           {"'a':{'type':'string','maxLength':2}", "{'a':'abc'}", {"spec.a: Too long: may not be more than 2 bytes"}},
           {"'a':{'type':'array','maxItems':1,'items':{'type':'string'}}", "{'a':['x','y']}",
            {"spec.a: Too many: 2: must have at most 1 items"}},
           {"'a':{'type':'array','minItems':1,'items':{'type':'string'}}", "{'a':[]}",
            {"spec.a: Invalid value: 0: spec.a in body should have at least 1 items"}},
           {"'a':{'type':'array','items':{'type':'string'}}", "{'a':['x',1]}",
            {"spec.a[1]: Invalid value: \"integer\": spec.a[1] in body must be of type string: \"integer\""}},
           {"'a':{'type':'array','x-kubernetes-list-type':'set','items':{'type':'string'}}", "{'a':['x','x']}",
            {"spec.a[1]: Duplicate value: \"x\""}},
           {"'a':{'type':'array','x-kubernetes-list-type':'map','x-kubernetes-list-map-keys':['n'],'items':{'type':'object',"
            "'properties':{'n':{'type':'string'},'v':{'type':'string'}}}}",
            "{'a':[{'n':'x','v':'1'},{'n':'x','v':'2'}]}", {"spec.a[1]: Duplicate value: {\"n\":\"x\"}"}},
           {"'a':{'type':'object','additionalProperties':{'type':'integer'}}", "{'a':{'k':'x'}}",
            {"spec.a.k: Invalid value: \"string\": spec.a.k in body must be of type integer: \"string\""}},
           {"'a':{'x-kubernetes-int-or-string':true}", "{'a':1.5}",
            {"spec.a: Invalid value: \"number\": spec.a in body must be of type integer,string: \"number\""}},
           {"'a':{'x-kubernetes-int-or-string':true}", "{'a':'5%'}", {}},
           {"'a':{'type':'string','format':'ipv4'}", "{'a':'::1'}",
            {"spec.a: Invalid value: \"::1\": spec.a in body must be of type ipv4: \"::1\""}},
           {"'a':{'type':'string','format':'date-time'}", "{'a':'2026-01-01T00:00:00Z'}", {}},
           {"'a':{'type':'string','format':'anything'}", "{'a':'x'}", {}},
           {"'a':{'type':'string','anyOf':[{'enum':['x']},{'pattern':'^y'}]}", "{'a':'z'}",
            {"spec.a: Invalid value: \"z\": \"spec.a\" must validate at least one schema (anyOf)"}},
           {"'a':{'type':'string','oneOf':[{'pattern':'x'},{'pattern':'y'}]}", "{'a':'xy'}",
            {"spec.a: Invalid value: \"xy\": \"spec.a\" must validate one and only one schema (oneOf). Found 2 valid alternatives"}},
           {"'a':{'type':'string','not':{'enum':['x']}}", "{'a':'x'}",
            {"spec.a: Invalid value: \"x\": \"spec.a\" must not validate the schema (not)"}},
           {"'a':{'type':'string','allOf':[{'minLength':3}]}", "{'a':'x'}",
            {"spec.a: Invalid value: \"x\": spec.a in body should be at least 3 chars long"}},
       }) {
    field::ErrorList errors;
    compiled(r.properties).validate(value(std::string("{'spec':") + r.spec + "}").as_object(), errors);
    EXPECT_THAT(texts(errors), ElementsAreArray(r.want)) << r.properties << " " << r.spec;
  }
}

TEST(Schema, FaultsAreNamed) {
  struct Row {
    const char* schema;
    Texts want;
  };
  for (const Row& r : std::vector<Row>{
           {"{}", {"s.type: Required value: must not be empty at the root"}},
           {"{'type':'string'}", {"s.type: Invalid value: \"string\": must be object at the root"}},
           {"{'type':'object','properties':{'a':{}}}", {"s.properties[a].type: Required value: must not be empty for specified object fields"}},
           {"{'type':'object','properties':{'a':{'type':'text'}}}",
            {"s.properties[a].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", "
             "\"string\""}},
           {"{'type':'object','properties':{'a':{'type':'array'}}}", {"s.properties[a].items: Required value: must be specified"}},
           {"{'type':'object','properties':{'a':{'$ref':'#/x','type':'object'}}}", {"s.properties[a].$ref: Forbidden: $ref is not supported"}},
           {"{'type':'object','additionalProperties':false}", {"s.additionalProperties: Forbidden: additionalProperties cannot be set to false"}},
           {"{'type':'object','properties':{'a':{'type':'string'}},'additionalProperties':true}",
            {"s.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"}},
           {"{'type':'object','properties':{'a':{'type':'array','uniqueItems':true,'items':{'type':'string'}}}}",
            {"s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"}},
           {"{'type':'object','x-kubernetes-preserve-unknown-fields':false}",
            {"s.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"}},
           {"{'type':'object','properties':{'a':{'type':'string','minLength':-1}}}",
            {"s.properties[a].minLength: Invalid value: -1: must be a whole number that is not negative"}},
           {"'text'", {"s: Invalid value: \"text\": must be an object"}},
       }) {
    field::ErrorList errors;
    (void)Schema::compile(value(r.schema), field::Path("s"), errors);
    EXPECT_THAT(texts(errors), ElementsAreArray(r.want)) << r.schema;
  }
  field::ErrorList errors;
  (void)Schema::compile(value("{'type':'object','properties':{'a':{'type':'string','pattern':'['}}}"), field::Path("s"), errors);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_THAT(errors[0].text(), ::testing::StartsWith("s.properties[a].pattern: Invalid value: \"[\": must be a valid regular expression"));
  // Deeper than anyone writes: an error, not a stack that ends.
  std::string deep = "{'type':'object'}";
  for (int i = 0; i < 80; ++i) deep = "{'type':'array','items':" + deep + "}";
  field::ErrorList too_deep;
  (void)Schema::compile(value("{'type':'object','properties':{'a':" + deep.substr(0, deep.size()) + "}}"), field::Path("s"), too_deep);
  ASSERT_GE(too_deep.size(), 1u);
}

TEST(JsonPath, FindsOrRefuses) {
  const auto object = value("{'spec':{'a':['x','y'],'n':3,'l':[{'t':'A','v':'1'},{'t':'B','v':'2'}],'m':{'k.8':'dot'}}}");
  for (const auto& [path, want] : std::vector<std::pair<const char*, const char*>>{
           {".spec.n", "3"}, {".spec.a", "['x','y']"}, {".spec.a[0]", "'x'"}, {".spec.a[-1]", "'y'"}, {".spec.a[7]", ""},
           {".spec.l[?(@.t==\"B\")].v", "'2'"}, {".spec.l[?(@.t=='C')].v", ""}, {".spec.l[*].v", "'1'"},
           {".spec.m['k.8']", "'dot'"}, {".spec.m.k\\.8", "'dot'"}, {".spec.nothing.at.all", ""}, {".spec.n.x", ""}}) {
    const auto parsed = JsonPath::parse(path);
    ASSERT_TRUE(parsed) << path;
    const auto* found = parsed->find(object);
    EXPECT_EQ(found ? text(*found) : "", want) << path;
  }
  for (const auto* bad : {"", "spec", ".", ".a..b", ".a[", ".a[x]", ".a[0]b", ".a[?(@.b)]"}) EXPECT_FALSE(JsonPath::parse(bad)) << bad;
}

constexpr char kGood[] = R"({'apiVersion':'apiextensions.k8s.io/v1','kind':'CustomResourceDefinition','metadata':{'name':'cars.example.com'},
'spec':{'group':'example.com','scope':'Namespaced','names':{'kind':'Car','plural':'cars','shortNames':['cr']},
'versions':[{'name':'v1','served':true,'storage':true,'schema':{'openAPIV3Schema':{'type':'object'}}}]}})";

kube::CustomObject definition(const std::string& patch) {
  kube::CustomObject crd;
  auto v = value(kGood);
  // A merge of the spec's members is enough here.
  const auto changes = value(patch);
  for (const auto& m : changes.as_object()) v.as_object()["spec"].as_object()[m.key()] = m.value();
  EXPECT_TRUE(kube::from_json_value(v, crd));
  default_definition(crd);
  return crd;
}

TEST(Definitions, DefaultsAndFaults) {
  const std::string version = "{'name':'v1','served':true,'storage':true,'schema':{'openAPIV3Schema':{'type':'object'}}";
  for (const auto& [patch, want] : std::vector<std::pair<std::string, Texts>>{
           {"{}", {}},
           {"{'group':'example'}",
            {"spec.group: Invalid value: \"example\": should be a domain with at least one dot",
             "metadata.name: Invalid value: \"cars.example.com\": must be spec.names.plural+\".\"+spec.group"}},
           {"{'scope':'World'}", {"spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\""}},
           {"{'names':{'plural':'cars'}}", {"spec.names.kind: Required value"}},
           {"{'names':{'kind':'Car','plural':'Cars'}}", {}},  // filled in below: the words of a label are long
           {"{'versions':[]}", {"spec.versions: Invalid value: null: must have exactly one version marked as storage version"}},
           {"{'versions':[" + version + "}," + version + "}]}",
            {"spec.versions: Invalid value: null: must have exactly one version marked as storage version",
             "spec.versions: Invalid value: null: must contain unique version names"}},
           {"{'versions':[{'name':'v1','served':true,'storage':true}]}",
            {"spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"}},
           {"{'versions':[" + version + ",'additionalPrinterColumns':[{'name':'A','type':'text','jsonPath':'x'}]}]}",
            {"spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
             "spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value: \"x\": a path begins with a dot in \"x\""}},
           {"{'conversion':{'strategy':'Webhook'}}", {"spec.conversion.webhook: Required value: required when strategy is set to \"Webhook\""}},
           {"{'versions':7}", {"spec.versions: Invalid value: 7: must be a list",
                               "spec.versions: Invalid value: null: must have exactly one version marked as storage version"}},
       }) {
    field::ErrorList errors;
    const auto d = read_definition(definition(patch), errors);
    if (patch.find("'Cars'") != std::string::npos) {
      ASSERT_EQ(errors.size(), 2u);
      EXPECT_THAT(errors[0].text(), ::testing::StartsWith("spec.names.plural: Invalid value: \"Cars\": a DNS-1035 label must"));
      continue;
    }
    EXPECT_THAT(texts(errors), ElementsAreArray(want)) << patch;
  }
  field::ErrorList none;
  const auto d = read_definition(definition("{}"), none);
  EXPECT_EQ(d.names.singular, "car");
  EXPECT_EQ(d.names.list_kind, "CarList");
  ASSERT_NE(d.storage(), nullptr);
  EXPECT_EQ(d.storage()->name, "v1");
}

TEST(Definitions, VersionsInTheOrderOfPreference) {
  Texts v = {"foo1", "v1beta1", "v10", "v1alpha2", "v2", "v1", "v3beta1", "v11alpha1", "foo10"};
  std::sort(v.begin(), v.end(), preferred_version);
  EXPECT_THAT(v, ElementsAre("v10", "v2", "v1", "v3beta1", "v1beta1", "v11alpha1", "v1alpha2", "foo1", "foo10"));
}

TEST(Definitions, WhatKubeApiserverStoresIsRead) {
  auto stored = value(R"({'apiVersion':'apiextensions.k8s.io/v1beta1','kind':'CustomResourceDefinition','metadata':{'name':'cars.example.com'},
    'spec':{'group':'example.com','version':'v1','scope':'Cluster','names':{'kind':'Car','plural':'cars'},'preserveUnknownFields':false,
    'validation':{'openAPIV3Schema':{'type':'object'}},'subresources':{'status':{}},
    'additionalPrinterColumns':[{'name':'A','type':'string','JSONPath':'.spec.a'}],'versions':[{'name':'v1','served':true,'storage':true}],
    'conversion':{'strategy':'None'}}})");
  upgrade_definition(stored.as_object());
  kube::CustomObject crd;
  ASSERT_TRUE(kube::from_json_value(stored, crd));
  field::ErrorList errors;
  const auto d = read_definition(crd, errors);
  EXPECT_THAT(texts(errors), ElementsAre());
  ASSERT_EQ(d.versions.size(), 1u);
  EXPECT_TRUE(d.versions[0].status);
  EXPECT_EQ(d.versions[0].columns.size(), 1u);
}

TEST(Store, DefinitionsAreJsonAndEqualOnesAreEqualBytes) {
  const Resources resources{ClusterFacts{}};
  const auto* r = resources.find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
  ASSERT_NE(r, nullptr);
  EXPECT_EQ(r->key("", "cars.example.com"), "/registry/apiextensions.k8s.io/customresourcedefinitions/cars.example.com");
  auto crd = definition("{}");
  r->strategy->prepare_for_create(crd);
  crd.mutable_metadata()->set_resourceversion("7");
  const auto bytes = encode_value(*r, crd);
  EXPECT_EQ(bytes.find("{\"kind\":\"CustomResourceDefinition\",\"apiVersion\":\"apiextensions.k8s.io/v1\",\"metadata\":{\"name\":\"cars.example.com\""), 0u) << bytes;
  EXPECT_EQ(bytes.find("resourceVersion"), std::string::npos);
  const auto back = decode_value(*r, "key", bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(encode_value(*r, **back), bytes);
  EXPECT_EQ(decode_value(*r, "key", "k8s").error().message.substr(0, 18), "stored object key:");
  EXPECT_FALSE(decode_value(*r, "key", "[]"));
}

}  // namespace
}  // namespace fairlead::apiserver::custom
