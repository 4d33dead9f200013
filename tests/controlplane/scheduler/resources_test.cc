#include "controlplane/scheduler/resources.h"

#include <gtest/gtest.h>

#include "tests/controlplane/scheduler/make.h"

namespace fairlead::scheduler {
namespace {

corev1::Container container(const char* cpu, const char* memory, bool sidecar = false) {
  corev1::Container c;
  c.set_name("x");
  if (*cpu) (*c.mutable_resources()->mutable_requests())["cpu"].set_string(cpu);
  if (*memory) (*c.mutable_resources()->mutable_requests())["memory"].set_string(memory);
  if (sidecar) c.set_restartpolicy("Always");
  return c;
}

struct RequestRow {
  const char* story;
  std::vector<corev1::Container> containers, init;
  const char* overhead_cpu;
  const char* pod_cpu;
  std::int64_t milli_cpu, memory;
};

TEST(PodRequest, CountsTheMostThatThePodNeedsAtAnyTime) {
  const RequestRow rows[] = {
      {"containers run together", {container("100m", "10"), container("200m", "20")}, {}, "", "", 300, 30},
      {"an init container runs alone", {container("100m", "10")}, {container("500m", "5")}, "", "", 500, 10},
      {"init containers run one after the other", {container("100m", "")}, {container("300m", ""), container("400m", "")}, "", "", 400, 0},
      {"a sidecar runs with the containers", {container("100m", "10")}, {container("50m", "1", true)}, "", "", 150, 11},
      {"an init container after a sidecar runs next to it", {container("100m", "")}, {container("50m", "", true), container("300m", "")}, "", "", 350, 0},
      {"a sidecar after an init container does not", {container("100m", "")}, {container("300m", ""), container("50m", "", true)}, "", "", 300, 0},
      {"overhead is added", {container("100m", "")}, {}, "250m", "", 350, 0},
      {"a request of the whole pod stands for all containers", {container("100m", "7")}, {}, "", "2", 2000, 7},
  };
  for (const auto& row : rows) {
    corev1::Pod pod;
    for (const auto& c : row.containers) *pod.mutable_spec()->add_containers() = c;
    for (const auto& c : row.init) *pod.mutable_spec()->add_initcontainers() = c;
    if (*row.overhead_cpu) (*pod.mutable_spec()->mutable_overhead())["cpu"].set_string(row.overhead_cpu);
    if (*row.pod_cpu) (*pod.mutable_spec()->mutable_resources()->mutable_requests())["cpu"].set_string(row.pod_cpu);
    const auto r = pod_request(pod);
    ASSERT_TRUE(r) << row.story;
    EXPECT_EQ(r->milli_cpu, row.milli_cpu) << row.story;
    EXPECT_EQ(r->memory, row.memory) << row.story;
  }
}

TEST(PodRequest, ContainersWithoutRequestsCountForScores) {
  const auto r = pod_scoring_request(PodMaker("p").pod);
  ASSERT_TRUE(r);
  EXPECT_EQ(r->milli_cpu, 100);
  EXPECT_EQ(r->memory, 200ll << 20);
}

TEST(PodRequest, SaysWhichQuantityDoesNotParse) {
  const auto r = pod_request(PodMaker("p").request("cpu", "many").pod);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("container c: cpu"), std::string::npos) << r.error().message;
}

}  // namespace
}  // namespace fairlead::scheduler
