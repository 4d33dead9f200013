#include "kube/selector.h"

#include <gtest/gtest.h>

#include <map>

#include "kube/api.h"
#include "kube/codec.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::kube {
namespace {

using Labels = std::map<std::string, std::string>;

TEST(LabelSelector, ParseMatchPrint) {
  const Labels web = {{"app", "web"}, {"tier", "a"}, {"n", "5"}, {"empty", ""}, {"example.com/x", "1"}};
  const struct {
    const char* text;
    bool matches;
    const char* canonical;
  } rows[] = {
      {"", true, ""},
      {"   ", true, ""},
      {"app=web", true, "app=web"},
      {"app==web", true, "app=web"},
      {"app = web", true, "app=web"},
      {"app=other", false, "app=other"},
      {"app!=web", false, "app!=web"},
      {"app!=other", true, "app!=other"},
      {"missing!=x", true, "missing!=x"},
      {"app", true, "app"},
      {"missing", false, "missing"},
      {"!missing", true, "!missing"},
      {"! missing", true, "!missing"},
      {"!app", false, "!app"},
      {"tier in (b,a)", true, "tier in (a,b)"},
      {"tier in (a)", true, "tier=a"},
      {"tier in (b,c)", false, "tier in (b,c)"},
      {"tier notin (b,c)", true, "tier notin (b,c)"},
      {"tier notin (a)", false, "tier!=a"},
      {"missing notin (a,b)", true, "missing notin (a,b)"},
      {"empty=", true, "empty="},
      {"app=", false, "app="},
      {"empty in (,x)", true, "empty in (,x)"},
      {"n>4", true, "n>4"},
      {"n<5", false, "n<5"},
      {"app>4", false, "app>4"},
      {"missing<4", false, "missing<4"},
      {"tier=a,app=web,!x", true, "app=web,tier=a,!x"},
      {"app=web,app!=web", false, "app=web,app!=web"},
      {"example.com/x in (1,2),app", true, "app,example.com/x in (1,2)"},
      {"in=notin", false, "in=notin"},
      {"in in (in)", false, "in=in"},
      {"notin", false, "notin"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.text);
    const auto s = LabelSelector::parse(r.text);
    ASSERT_TRUE(s.has_value()) << s.error().message;
    EXPECT_EQ(s->matches(web), r.matches);
    EXPECT_EQ(s->to_string(), r.canonical);
    const auto again = LabelSelector::parse(s->to_string());
    ASSERT_TRUE(again.has_value()) << again.error().message;
    EXPECT_EQ(again->matches(web), r.matches);
  }
}

TEST(LabelSelector, Refused) {
  for (const std::string& text : {std::string(","),         std::string("app=web,"),
                                  std::string("=web"),      std::string("app=web tier=a"),
                                  std::string("app in"),    std::string("app in ()"),
                                  std::string("app in (a"), std::string("app in (a b)"),
                                  std::string("app in a"),  std::string("!app=web"),
                                  std::string("!"),         std::string("app=a b"),
                                  std::string("app ! web"), std::string("-app"),
                                  std::string("a/b/c=1"),   std::string("A.com/x"),
                                  std::string("/x"),        std::string("x/"),
                                  std::string("n>x"),       std::string("n>"),
                                  std::string("app=-web"),  std::string("app=") + std::string(64, 'a'),
                                  std::string(64, 'a'),     std::string("app=a(b"),
                                  std::string("app==="),    std::string("app<>1"),
                                  std::string("a=b,,c=d")}) {
    const auto s = LabelSelector::parse(text);
    ASSERT_FALSE(s.has_value()) << text << " read as " << s->to_string();
    EXPECT_EQ(s.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(s.error().message.find("unable to parse requirement"), std::string::npos) << s.error().message;
  }
}

TEST(LabelSelector, FromMessage) {
  const struct {
    const char* json;
    const char* text;  // of the selector, or of the error
    bool ok;
  } rows[] = {
      {"{}", "", true},
      {R"({"matchLabels":{"b":"2","a":"1"}})", "a=1,b=2", true},
      {R"({"matchExpressions":[{"key":"x","operator":"In","values":["2","1"]},{"key":"y","operator":"DoesNotExist"},
          {"key":"z","operator":"Exists"},{"key":"w","operator":"NotIn","values":["1"]}]})",
       "w!=1,x in (1,2),!y,z", true},
      {R"({"matchExpressions":[{"key":"x","operator":"in"}]})",
       "matchExpressions[0].operator: \"in\" is not one of In, NotIn, Exists, DoesNotExist", false},
      {R"({"matchExpressions":[{"key":"x","operator":"In"}]})",
       "matchExpressions[0]: key \"x\": in and notin need at least one value", false},
      {R"({"matchExpressions":[{"key":"x","operator":"Exists","values":["a"]}]})",
       "matchExpressions[0]: key \"x\": exists and does-not-exist take no values", false},
  };
  for (const auto& r : rows) {
    metav1::LabelSelector m;
    ASSERT_TRUE(from_json(r.json, m).has_value());
    const auto s = LabelSelector::from(m);
    ASSERT_EQ(s.has_value(), r.ok);
    EXPECT_EQ(s ? s->to_string() : s.error().message, r.text);
  }
}

TEST(LabelSelector, EverythingAndNothing) {
  EXPECT_TRUE(LabelSelector().matches(Labels{}));
  EXPECT_TRUE(LabelSelector().empty());
  EXPECT_FALSE(LabelSelector::nothing().matches(Labels{{"a", "b"}}));
  EXPECT_FALSE(LabelSelector::nothing().empty());
  EXPECT_TRUE(LabelSelector::from_map(Labels{{"a", "b"}}).matches(Labels{{"a", "b"}, {"c", "d"}}));
}

TEST(FieldSelector, ParseAndMatch) {
  const auto value_of = [](std::string_view f) -> std::string {
    if (f == "spec.nodeName") return "n1";
    if (f == "status.phase") return "Running";
    if (f == "x") return "a,b=c\\d";
    return "";
  };
  const struct {
    const char* text;
    bool matches;
    std::size_t count;
  } rows[] = {
      {"", true, 0},
      {"spec.nodeName=n1", true, 1},
      {"spec.nodeName==n1,status.phase!=Failed,status.phase!=Succeeded", true, 3},
      {"spec.nodeName!=n1", false, 1},
      {"spec.nodeName=", false, 1},
      {"spec.other=", true, 1},
      {"spec.nodeName=n1,,", true, 1},
      {R"(x=a\,b\=c\\d)", true, 1},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.text);
    const auto s = FieldSelector::parse(r.text);
    ASSERT_TRUE(s.has_value()) << s.error().message;
    EXPECT_EQ(s->requirements().size(), r.count);
    EXPECT_EQ(s->matches(value_of), r.matches);
  }
  const auto s = *FieldSelector::parse("a!=1,b=2");
  EXPECT_EQ(s.required_value("b"), "2");
  EXPECT_EQ(s.required_value("a"), std::nullopt);
  for (const char* bad : {"spec.nodeName", "=x", "a=b=c", "a!b", R"(a=\x)", R"(a=\)", "a=b,c"}) {
    EXPECT_FALSE(FieldSelector::parse(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace fairlead::kube
