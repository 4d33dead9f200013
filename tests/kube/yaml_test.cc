#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

#include "kube/codec.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;

TEST(Yaml, ReadsAsKubectlDoes) {
  const struct {
    const char* yaml;
    const char* json;
  } rows[] = {
      {"a: 1\nb: [x, 2, true]\nc: {d: null, e: ~}\n", R"({"a":1,"b":["x",2,true],"c":{"d":null,"e":null}})"},
      {"mode: 0644\nhex: 0x1F\noct: 0o17\nbin: 0b101\nneg: -0x10\nsep: 1_000\n",
       R"({"mode":420,"hex":31,"oct":15,"bin":5,"neg":-16,"sep":1000})"},
      {"a: yes\nb: off\nc: y\nd: \"yes\"\ne: 'on'\nf: Yes\n", R"({"a":true,"b":false,"c":"y","d":"yes","e":"on","f":true})"},
      {"a: 1.5\nb: 1e3\nc: .5\nd: -2.\ne: 1.2.3\nf: 1e\ng: 1.0\n",
       R"({"a":1.5,"b":1000,"c":0.5,"d":-2,"e":"1.2.3","f":"1e","g":1})"},
      {"a: 10.0.0.1\nb: 10.0.0.0/8\nc: 12:30\nd: 2024-05-01\ne: 2024-05-01T10:00:00Z\nf: 08\n",
       R"({"a":"10.0.0.1","b":"10.0.0.0/8","c":"12:30","d":"2024-05-01","e":"2024-05-01T10:00:00Z","f":8})"},
      {"a: 9223372036854775807\nb: 18446744073709551615\nc: -9223372036854775808\n",
       R"({"a":9223372036854775807,"b":18446744073709551615,"c":-9223372036854775808})"},
      {"a: |\n  x\n   y\nb: >-\n  x\n  y\n", R"({"a":"x\n y\n","b":"x y"})"},
      {"base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nalso: *b\n",
       R"({"base":{"x":1,"y":2},"use":{"x":1,"y":3},"also":{"x":1,"y":2}})"},
      {"use:\n  y: 3\n  <<: [{x: 1, y: 9}, {x: 2, z: 4}]\n", R"({"use":{"y":3,"x":1,"z":4}})"},
      {"1: a\ntrue: b\n1.5: c\n", R"({"1":"a","true":"b","1.5":"c"})"},
      {"a: !!str 5\nb: \"5\"\n", R"({"a":"5","b":"5"})"},
      {"{\"a\": [1, {\"b\": \"c\"}]}", R"({"a":[1,{"b":"c"}]})"},
      {"a:\n- x\n- y:\n  - z\n", R"({"a":["x",{"y":["z"]}]})"},
      {"a:\nb: \"\"\n", R"({"a":null,"b":""})"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.yaml);
    const auto docs = parse_yaml(r.yaml);
    ASSERT_TRUE(docs.has_value()) << docs.error().message;
    ASSERT_EQ(docs->size(), 1u);
    EXPECT_EQ((*docs)[0], json::parse(r.json));
  }
}

TEST(Yaml, SeveralDocuments) {
  const auto docs = parse_yaml("---\na: 1\n---\n# nothing here\n---\nb: 2\n...\n");
  ASSERT_TRUE(docs.has_value());
  ASSERT_EQ(docs->size(), 2u);
  EXPECT_EQ((*docs)[1], json::parse(R"({"b":2})"));
  EXPECT_TRUE(parse_yaml("")->empty());
}

TEST(Yaml, Refused) {
  const struct {
    std::string yaml;
    const char* message;
  } rows[] = {
      {"a: [1, 2", "invalid YAML at line"},
      {"a: b: c\n", "invalid YAML at line 1"},
      {"a: *missing\n", "invalid YAML at line 1"},
      {"? [a]\n: b\n", "a key must be a scalar"},
      {"? {a: 1}\n: b\n", "a key must be a scalar"},
      {"a: \xff\n", "not UTF-8"},
      {",--\na: 1\n", "invalid YAML at line 1, column 1: expected a document"},
      {"a: 1\n---\n]\n", "invalid YAML at line 3"},
      {"a: &x [*x]\n", "an alias inside its own anchor"},
      {"<<: 5\n", "the value of << must be a mapping"},
      {std::string(101, '[') + std::string(101, ']'), "nested more than 100 levels deep"},
      {std::string(10000, '['), "invalid YAML"},
      {std::string(10000, '{'), "invalid YAML"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.yaml.substr(0, 80));
    const auto docs = parse_yaml(r.yaml);
    ASSERT_FALSE(docs.has_value());
    EXPECT_EQ(docs.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(docs.error().message.find(r.message), std::string::npos) << docs.error().message;
  }
}

TEST(Yaml, ExpansionIsBounded) {
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += fmt::format("a{0}: &a{0} [", i);
    for (int j = 0; j < 10; ++j) bomb += fmt::format("{}*a{}", j ? "," : "", i - 1);
    bomb += "]\n";
  }
  const auto docs = parse_yaml(bomb);
  ASSERT_FALSE(docs.has_value());
  EXPECT_NE(docs.error().message.find("more than 1000000 values"), std::string::npos) << docs.error().message;
}

TEST(Yaml, DuplicatesAreReported) {
  std::vector<std::string> strict;
  const auto docs = parse_yaml("spec:\n  replicas: 1\n  containers:\n  - name: a\n  - name: b\n    name: c\n  replicas: 2\n",
                               {.strict = &strict});
  ASSERT_TRUE(docs.has_value());
  EXPECT_EQ(strict,
            (std::vector<std::string>{"duplicate field \"spec.containers[1].name\"", "duplicate field \"spec.replicas\""}));
  EXPECT_EQ((*docs)[0].at("spec").at("replicas").as_int64(), 2);
}

TEST(Yaml, WritesReadableText) {
  const auto v = json::parse(
      R"({"kind":"ConfigMap","apiVersion":"v1","data":{"conf":"a = 1\nb = 2\n","one":"x","none":"","yes":"yes","num":"5"},
          "list":[{"b":1,"a":{"c":[]}},"s",[1,2],{}],"empty":{},"n":null})");
  EXPECT_EQ(to_yaml(v),
            "apiVersion: v1\n"
            "data:\n"
            "  conf: |\n"
            "    a = 1\n"
            "    b = 2\n"
            "  none: \"\"\n"
            "  num: \"5\"\n"
            "  one: x\n"
            "  \"yes\": \"yes\"\n"
            "empty: {}\n"
            "kind: ConfigMap\n"
            "list:\n"
            "- a:\n"
            "    c: []\n"
            "  b: 1\n"
            "- s\n"
            "-\n"
            "  - 1\n"
            "  - 2\n"
            "- {}\n"
            "\"n\": null\n");
}

TEST(Yaml, EveryStringReadsBackAsItself) {
  const std::string_view rows[] = {
      "",       " ",     "a ",   " a",        "-",          "- a",    "-a",       "--",     "---",   "...",
      "?",      "? a",   ":",    "a: b",      "a:",         ":a",     "a:b",      "#",      "a #b",  "a#b",
      "~",      "null",  "true", "yes",       "NO",         "5",      "-5",       "+5",     "1.5",   "1e3",
      "0x1",    "0o7",   "1_0",  ".5",        ".",          "..",     "=",        "<<",     "!a",    "&a",
      "*a",     "|",     ">",    "%a",        "@a",         "`a",     "'a'",      "\"a",    "[a",    "a]",
      "{a",     "a,b",   "a\n",  "\na",       "a\nb",       "a\n\nb", "a\n\n",    "a \nb",  "\ta",   "a\tb",
      "a\t\nb", "a\\n",  "\x01", "\xC3\xA4",  "2024-05-01", "12:30",  "10.0.0.1", "a\r\nb", "\x7F",  "\xE2\x80\xA8",
      "a\n b",  " a\nb", "\n",   "a\n---\nb", "0644",       "08",     "y",        "n",      "-.inf", ".NaN"};
  for (const auto s : rows) {
    SCOPED_TRACE(s);
    const json::value v = {{"k", s}, {"l", json::array{s, json::object{{s, s}}}}};
    const std::string yaml = to_yaml(v);
    const auto docs = parse_yaml(yaml);
    ASSERT_TRUE(docs.has_value()) << docs.error().message << "\n" << yaml;
    ASSERT_EQ(docs->size(), 1u) << yaml;
    EXPECT_EQ((*docs)[0], v) << yaml;
  }
}

}  // namespace
}  // namespace fairlead::kube
