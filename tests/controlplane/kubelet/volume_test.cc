// Volumes made of API objects: what files they hold, and that a reader sees all old or all new ones.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "base/files.h"
#include "controlplane/kubelet/volume_files.h"
#include "controlplane/kubelet/volumes.h"
#include "tests/controlplane/kubelet/fakes.h"
#include "tests/controlplane/kubelet/pods.h"

namespace fairlead::kubelet {
namespace {

namespace fs = std::filesystem;
using namespace testing_pods;

struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/fairlead-volume-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Folder() { fs::remove_all(path); }
};

std::shared_ptr<corev1::ConfigMap> config_map(std::map<std::string, std::string> data) {
  auto c = std::make_shared<corev1::ConfigMap>();
  for (auto& [k, v] : data) (*c->mutable_data())[k] = v;
  return c;
}
std::shared_ptr<corev1::Secret> secret(std::map<std::string, std::string> data) {
  auto c = std::make_shared<corev1::Secret>();
  for (auto& [k, v] : data) (*c->mutable_data())[k] = v;
  return c;
}

// "a=1:644 b/c=2:600"
std::string text(const Result<std::vector<VolumeFile>>& files) {
  if (!files) return "error: " + files.error().message;
  std::string out;
  for (const auto& f : *files) out += fmt::format("{}{}={}:{:o}", out.empty() ? "" : " ", f.path, f.content, f.mode);
  return out;
}

void item(corev1::KeyToPath* i, const char* key, const char* path, int mode = 0) {
  i->set_key(key);
  i->set_path(path);
  if (mode) i->set_mode(mode);
}

TEST(VolumeFiles, Table) {
  struct Row {
    const char* name;
    std::function<void(corev1::VolumeSource&)> given;
    const char* expect;
  };
  const auto cm = [](corev1::VolumeSource & s) -> auto& {
    auto& c = *s.mutable_configmap();
    c.mutable_localobjectreference()->set_name("c");
    return c;
  };
  const Row rows[] = {
      {"all keys of a ConfigMap", [&](auto& s) { cm(s); }, "bin=\x01:644 key=value:644"},
      {"a default mode", [&](auto& s) { cm(s).set_defaultmode(0400); }, "bin=\x01:400 key=value:400"},
      {"chosen keys", [&](auto& s) { item(cm(s).add_items(), "key", "a/b", 0600); }, "a/b=value:600"},
      {"a key that is missing", [&](auto& s) { item(cm(s).add_items(), "none", "a"); },
       "error: configmap \"c\" has no key \"none\""},
      {"a missing key that is optional", [&](auto& s) { cm(s).set_optional(true), item(cm(s).add_items(), "none", "a"); }, ""},
      {"a path that leaves the volume", [&](auto& s) { item(cm(s).add_items(), "key", "a/../../b"); },
       "error: file path \"a/../../b\" contains \"..\""},
      {"an absolute path", [&](auto& s) { item(cm(s).add_items(), "key", "/etc/passwd"); },
       "error: invalid file path \"/etc/passwd\""},
      {"a ConfigMap that is missing", [](auto& s) { s.mutable_configmap()->mutable_localobjectreference()->set_name("none"); },
       "error: configmap \"none\" not found"},
      {"a missing ConfigMap that is optional",
       [](auto& s) {
         s.mutable_configmap()->mutable_localobjectreference()->set_name("none");
         s.mutable_configmap()->set_optional(true);
       },
       ""},
      {"a Secret", [](auto& s) { s.mutable_secret()->set_secretname("s"); }, "password=hidden:644"},
      {"downward API",
       [](auto& s) {
         auto* i = s.mutable_downwardapi()->add_items();
         i->set_path("labels");
         i->mutable_fieldref()->set_fieldpath("metadata.labels");
         i = s.mutable_downwardapi()->add_items();
         i->set_path("cpu");
         i->mutable_resourcefieldref()->set_resource("limits.cpu");
         i->mutable_resourcefieldref()->set_containername("app");
         i->mutable_resourcefieldref()->mutable_divisor()->set_string("1m");
       },
       "cpu=2000:644 labels=a=\"1\"\nb=\"2\":644"},
      {"what a service account volume holds",
       [](auto& s) {
         auto* p = s.mutable_projected()->add_sources()->mutable_serviceaccounttoken();
         p->set_path("token");
         p->set_expirationseconds(3607);
         auto* c = s.mutable_projected()->add_sources()->mutable_configmap();
         c->mutable_localobjectreference()->set_name("kube-root-ca.crt");
         item(c->add_items(), "ca.crt", "ca.crt");
         auto* d = s.mutable_projected()->add_sources()->mutable_downwardapi()->add_items();
         d->set_path("namespace");
         d->mutable_fieldref()->set_fieldpath("metadata.namespace");
       },
       "ca.crt=CA:644 namespace=default:644 token=jwt:644"},
  };
  corev1::Pod pod = testing_pods::pod();
  add_main(pod, "app");
  (*pod.mutable_metadata()->mutable_labels())["b"] = "2";
  (*pod.mutable_metadata()->mutable_labels())["a"] = "1";
  VolumeObjects objects;
  auto c = config_map({{"key", "value"}});
  (*c->mutable_binarydata())["bin"] = "\x01";
  objects.config_maps["c"] = c;
  objects.config_maps["kube-root-ca.crt"] = config_map({{"ca.crt", "CA"}});
  objects.secrets["s"] = secret({{"password", "hidden"}});
  objects.tokens[token_key({"", 3607})] = "jwt";
  PodFacts facts;
  facts.node_cpu_milli = 2000;
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    corev1::Volume v;
    row.given(*v.mutable_volumesource());
    EXPECT_EQ(text(volume_files(pod, v, objects, facts)), row.expect);
  }
}

TEST(WriteVolume, ReplacesAllAtOnce) {
  const Folder dir;
  const std::string v = dir.path + "/v";
  ASSERT_TRUE(*write_volume(v, {{"a", "1", 0644}, {"sub/b", "2", 0600}}, std::nullopt));
  EXPECT_EQ(*read_file(v + "/a"), "1");
  EXPECT_EQ(*read_file(v + "/sub/b"), "2");
  const fs::path first = fs::read_symlink(v + "/..data");
  EXPECT_FALSE(*write_volume(v, {{"a", "1", 0644}, {"sub/b", "2", 0600}}, std::nullopt));  // nothing changed, nothing moved
  EXPECT_EQ(fs::read_symlink(v + "/..data"), first);
  ASSERT_TRUE(*write_volume(v, {{"a", "new", 0644}, {"c", "3", 0644}}, std::nullopt));
  EXPECT_EQ(*read_file(v + "/a"), "new");
  EXPECT_EQ(*read_file(v + "/c"), "3");
  EXPECT_FALSE(fs::exists(fs::symlink_status(v + "/sub")));
  EXPECT_FALSE(fs::exists(fs::path(v) / first));  // the old version is gone
  EXPECT_EQ(fs::read_symlink(v + "/a").string(), "..data/a");
  ASSERT_TRUE(*write_volume(v, {}, std::nullopt));
  EXPECT_FALSE(fs::exists(fs::symlink_status(v + "/a")));
  ASSERT_TRUE(*write_volume(v, {{"a", "1", 0400}}, 4711));
  struct stat st {};
  ASSERT_EQ(::stat((v + "/a").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0440u);  // the group may read what the owner may
  EXPECT_FALSE(*write_volume(v, {{"a", "1", 0400}}, 4711));
}

TEST(MountsBelow, FindsThemLongestFirst) {
  const char* info =
      "22 1 0:20 / / rw - ext4 /dev/vda rw\n"
      "30 22 0:31 / /k/pods/u/volumes/a rw,nosuid shared:7 - tmpfs tmpfs rw\n"
      "31 30 0:32 / /k/pods/u/volumes/a/deep rw - tmpfs tmpfs rw\n"
      "32 22 0:33 / /k/pods/u2/x rw - tmpfs tmpfs rw\n"
      "33 22 0:34 / /k/pods/u/with\\040space rw - tmpfs tmpfs rw\n";
  EXPECT_EQ(mounts_below(info, "/k/pods/u"),
            (std::vector<std::string>{"/k/pods/u/volumes/a/deep", "/k/pods/u/with space", "/k/pods/u/volumes/a"}));
  EXPECT_TRUE(mounts_below("", "/k").empty());
}

TEST(HostPath, Types) {
  const Folder dir;
  std::ofstream(dir.path + "/file") << "x";
  struct Row {
    const char *path, *type;
    bool good;
  };
  for (const Row& row : {Row{"", "", true}, Row{"/none", "", true}, Row{"", "Directory", true}, Row{"/none", "Directory", false},
                         Row{"/file", "Directory", false}, Row{"/file", "File", true}, Row{"/new", "DirectoryOrCreate", true},
                         Row{"/new2", "FileOrCreate", true}, Row{"/file", "DirectoryOrCreate", false},
                         Row{"/file", "Socket", false}, Row{"/file", "Nonsense", false}})
    EXPECT_EQ(check_host_path(dir.path + row.path, row.type).has_value(), row.good) << row.path << " " << row.type;
  EXPECT_FALSE(check_host_path("relative", ""));
}

TEST(VolumeManager, PreparesAndTearsDown) {
  const Folder dir;
  Settings settings;
  settings.root_dir = dir.path;
  auto objects = std::make_shared<testing_fakes::FakeObjects>();
  objects->config_maps["default/c"] = config_map({{"key", "value"}});
  VolumeManager volumes(settings, objects);
  auto pod = std::make_shared<corev1::Pod>(testing_pods::pod());
  auto* v = pod->mutable_spec()->add_volumes();
  v->set_name("conf");
  v->mutable_volumesource()->mutable_configmap()->mutable_localobjectreference()->set_name("c");
  v = pod->mutable_spec()->add_volumes();
  v->set_name("scratch");
  v->mutable_volumesource()->mutable_emptydir();
  net::io_context io;
  const auto prepare = [&] {
    Result<VolumePaths> out;
    net::co_spawn(io, volumes.prepare(pod, {}), [&](std::exception_ptr, Result<VolumePaths> r) { out = std::move(r); });
    io.run();
    io.restart();
    return out;
  };
  auto paths = prepare();
  ASSERT_TRUE(paths) << paths.error().message;
  EXPECT_EQ(*read_file(paths->at("conf") + "/key"), "value");
  struct stat st {};
  ASSERT_EQ(::stat(paths->at("scratch").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0777u);
  std::ofstream(paths->at("scratch") + "/data") << "kept";
  ASSERT_TRUE(prepare());  // again, as after a restart of the agent
  EXPECT_EQ(*read_file(paths->at("scratch") + "/data"), "kept");
  pod->mutable_spec()->add_volumes()->set_name("claim");
  pod->mutable_spec()->mutable_volumes(2)->mutable_volumesource()->mutable_persistentvolumeclaim()->set_claimname("x");
  EXPECT_EQ(prepare().error().message, "volume \"claim\": volumes of kind persistentVolumeClaim are not supported on this node");
  ASSERT_TRUE(volumes.teardown("u1"));
  EXPECT_FALSE(fs::exists(pod_dir(settings, "u1")));
  EXPECT_EQ(objects->released, std::vector<std::string>{"u1"});
  EXPECT_FALSE(volumes.teardown(""));
  EXPECT_FALSE(volumes.teardown("../x"));
}

}  // namespace
}  // namespace fairlead::kubelet
