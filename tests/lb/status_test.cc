#include <gtest/gtest.h>

#include "lb/status.h"

namespace fairlead::lb {
namespace {

TEST(LbStatus, Text) {
  StatusFacts f;
  f.pools = parse_pools({{"p.yaml", "{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: first}, spec: {addresses: [192.0.2.0/30], autoAssign: false}}\n---\n"
                                    "{apiVersion: metallb.io/v1beta1, kind: BFDProfile, metadata: {name: fast}}\n"}});
  const auto service = [](const char* key, const char* ip) {
    ServiceRequest r;
    r.key = key;
    r.load_balancer = true;
    if (*ip) r.status = {IpAddress::parse(ip).value()};
    return r;
  };
  f.services = {service("ns/a", "192.0.2.1"), service("ns/b", ""), service("ns/c", "10.0.0.1")};
  f.announced["ns/a 192.0.2.1"] = "worker-1";
  f.routed["ns/a 192.0.2.1"] = {"worker-1", "worker-2"};
  f.routed["ns/c 10.0.0.1"] = {"worker-2"};
  f.sessions = {{{"worker-1", "tor", "192.0.2.254:179", "Established", "", 2, 0}, false}, {{"worker-2", "tor", "192.0.2.254:179", "Active", "connect: Connection refused", 0, 0}, false},
                {{"worker-3", "tor", "192.0.2.254:179", "Established", "", 2, 0}, true}};
  f.leader = "host_1";
  EXPECT_EQ(status_text(f, {}),
            "POOL    ADDRESSES             USED   TOTAL   AUTO ASSIGN\n"
            "first   192.0.2.0-192.0.2.3   1      4       no\n"
            "\n"
            "SERVICE   ADDRESS     POOL     ANNOUNCED FROM\n"
            "ns/a      192.0.2.1   first    worker-1, BGP: worker-1 worker-2\n"
            "ns/b      <pending>            \n"
            "ns/c      10.0.0.1    <none>   BGP: worker-2\n"
            "\n"
            "NODE       BGP PEER   ROUTER            SESSION       ANNOUNCED   LAST ERROR\n"
            "worker-1   tor        192.0.2.254:179   Established   2           \n"
            "worker-2   tor        192.0.2.254:179   Active        0           connect: Connection refused\n"
            "worker-3   tor        192.0.2.254:179   <unknown>                 the node's speaker is silent\n"
            "\n"
            "Controller: host_1\n"
            "\n"
            "note: BFDProfile fast (p.yaml): BFD is not supported: this object is not acted upon\n");
  EXPECT_EQ(status_text({}, {}), "There are no pools.\n\nThere are no services of type LoadBalancer.\n\nController: none has the Lease\n");
}

}  // namespace
}  // namespace fairlead::lb
