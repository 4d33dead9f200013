#include "base/ip.h"

#include <gtest/gtest.h>

namespace fairlead {
namespace {

TEST(IpAddress, ParsesAndPrintsCanonically) {
  struct Row {
    const char* in;
    const char* out;  // null: refused
  };
  for (const Row& r : {Row{"10.0.0.1", "10.0.0.1"},
                       {"255.255.255.255", "255.255.255.255"},
                       {"::1", "::1"},
                       {"FD00:0:0::00a", "fd00::a"},
                       {"2001:db8::1:0:0:1", "2001:db8::1:0:0:1"},
                       {"", nullptr},
                       {"10.0.0", nullptr},
                       {"10.0.0.01", nullptr},
                       {"10.0.0.256", nullptr},
                       {" 10.0.0.1", nullptr},
                       {"::ffff:10.0.0.1", nullptr},
                       {"1::2::3", nullptr},
                       {"10.0.0.1/8", nullptr}}) {
    const auto ip = IpAddress::parse(r.in);
    EXPECT_EQ(ip.has_value(), r.out != nullptr) << r.in;
    if (ip && r.out) {
      EXPECT_EQ(ip->to_string(), r.out);
    }
  }
  EXPECT_FALSE(IpAddress::parse(std::string_view("10.0.0.1\0x", 10)));
}

TEST(IpAddress, PlusCarriesAndWraps) {
  EXPECT_EQ(IpAddress::v4(10, 0, 0, 255).plus(1).to_string(), "10.0.1.0");
  EXPECT_EQ(IpAddress::v4(255, 255, 255, 255).plus(1).to_string(), "0.0.0.0");
  EXPECT_EQ(IpAddress::parse("fd00::ffff")->plus(2).to_string(), "fd00::1:1");
}

TEST(IpAddress, Classes) {
  EXPECT_TRUE(IpAddress::parse("127.3.0.1")->is_loopback());
  EXPECT_TRUE(IpAddress::parse("::1")->is_loopback());
  EXPECT_FALSE(IpAddress::parse("::2")->is_loopback());
  EXPECT_TRUE(IpAddress::parse("fe80::1")->is_link_local());
  EXPECT_TRUE(IpAddress::parse("169.254.1.1")->is_link_local());
  EXPECT_TRUE(IpAddress::parse("224.0.0.1")->is_multicast());
  EXPECT_TRUE(IpAddress::parse("::")->is_unspecified());
}

TEST(Prefix, ParsesStrictlyAndContains) {
  const auto p = Prefix::parse("10.96.0.0/12");
  ASSERT_TRUE(p);
  EXPECT_TRUE(p->contains(*IpAddress::parse("10.111.255.255")));
  EXPECT_FALSE(p->contains(*IpAddress::parse("10.112.0.0")));
  EXPECT_FALSE(p->contains(*IpAddress::parse("fd00::1")));
  EXPECT_EQ(p->last().to_string(), "10.111.255.255");
  EXPECT_TRUE(Prefix::parse("0.0.0.0/0")->contains(*IpAddress::parse("1.2.3.4")));
  EXPECT_TRUE(Prefix::parse("::/0")->overlaps(*Prefix::parse("fd00::/8")));
  for (const char* bad : {"10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "fd00::/129", "/8"})
    EXPECT_FALSE(Prefix::parse(bad)) << bad;
  EXPECT_NE(Prefix::parse("10.0.0.1/8").error().message.find("10.0.0.0/8"), std::string::npos);
}

TEST(SocketAddress, ParsesBothFamilies) {
  EXPECT_EQ(SocketAddress::parse("10.0.0.1:80")->to_string(), "10.0.0.1:80");
  EXPECT_EQ(SocketAddress::parse("[fd00::1]:80")->to_string(), "[fd00::1]:80");
  for (const char* bad : {"10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "fd00::1:80", "[10.0.0.1]:80", ":80", "10.0.0.1:080"})
    EXPECT_FALSE(SocketAddress::parse(bad)) << bad;
}

TEST(Protocol, ParsesAnyCase) {
  EXPECT_EQ(parse_protocol("tcp").value(), Protocol::tcp);
  EXPECT_EQ(parse_protocol("SCTP").value(), Protocol::sctp);
  EXPECT_FALSE(parse_protocol("icmp"));
}

}  // namespace
}  // namespace fairlead
