#include "demo/image.h"

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

namespace fairlead::demo {
namespace {

struct Entry {
  std::string content;
  unsigned mode = 0;
  bool directory = false;
};

std::map<std::string, Entry> unpack(const std::string& bytes) {
  std::map<std::string, Entry> out;
  archive* a = archive_read_new();
  archive_read_support_filter_all(a);
  archive_read_support_format_all(a);
  EXPECT_EQ(archive_read_open_memory(a, bytes.data(), bytes.size()), ARCHIVE_OK);
  archive_entry* e = nullptr;
  while (archive_read_next_header(a, &e) == ARCHIVE_OK) {
    Entry entry{"", archive_entry_perm(e), archive_entry_filetype(e) == AE_IFDIR};
    entry.content.resize(static_cast<std::size_t>(archive_entry_size(e)));
    EXPECT_EQ(archive_read_data(a, entry.content.data(), entry.content.size()), static_cast<la_ssize_t>(entry.content.size()));
    EXPECT_EQ(archive_entry_mtime(e), 0);
    out[archive_entry_pathname(e)] = std::move(entry);
  }
  archive_read_free(a);
  return out;
}

ImageSpec small() {
  ImageSpec s;
  s.reference = "fairlead.local/demo:1";
  s.files = {{"/bin/tool", "program", 0755}, {"/tmp", "", 01777, true}};
  s.entrypoint = {"/bin/tool"};
  s.command = {"serve"};
  s.environment = {"VERSION=1"};
  s.user = "65532:65532";
  return s;
}

TEST(Image, SameInputGivesSameBytes) {
  const auto a = build_image(small());
  const auto b = build_image(small());
  ASSERT_TRUE(a && b);
  EXPECT_EQ(*a, *b);
  ImageSpec other = small();
  other.environment = {"VERSION=2"};
  EXPECT_NE(build_blobs(small())->manifest_digest, build_blobs(other)->manifest_digest);
}

TEST(Image, EveryDigestInTheChainNamesABlobOfThatSize) {
  const auto blobs = build_blobs(small());
  ASSERT_TRUE(blobs) << blobs.error().message;
  const auto at = [&](const boost::json::value& descriptor) {
    const std::string digest(descriptor.at("digest").as_string());
    const auto it = blobs->files.find("blobs/sha256/" + digest.substr(7));
    EXPECT_NE(it, blobs->files.end()) << digest;
    EXPECT_EQ(descriptor.at("size").as_int64(), static_cast<std::int64_t>(it->second.size()));
    return it->second;
  };
  const auto index = boost::json::parse(blobs->files.at("index.json"));
  const auto& entry = index.at("manifests").at(0);
  EXPECT_EQ(entry.at("annotations").at("io.containerd.image.name").as_string(), "fairlead.local/demo:1");
  const auto manifest = boost::json::parse(at(entry));
  const auto config = boost::json::parse(at(manifest.at("config")));
  EXPECT_EQ(config.at("config").at("Entrypoint").at(0).as_string(), "/bin/tool");
  EXPECT_EQ(config.at("config").at("User").as_string(), "65532:65532");
  const auto layer = unpack(at(manifest.at("layers").at(0)));
  EXPECT_THAT(layer, testing::SizeIs(3));
  EXPECT_EQ(layer.at("bin/tool").content, "program");
  EXPECT_EQ(layer.at("bin/tool").mode, 0755u);
  EXPECT_TRUE(layer.at("bin/").directory);
  EXPECT_EQ(layer.at("tmp/").mode, 01777u);
}

TEST(Image, ArchiveHoldsTheLayout) {
  const auto archive = build_image(small());
  ASSERT_TRUE(archive);
  const auto files = unpack(*archive);
  EXPECT_EQ(files.at("oci-layout").content, R"({"imageLayoutVersion":"1.0.0"})");
  EXPECT_THAT(files, testing::SizeIs(5));  // layout, index, manifest, config, layer
}

TEST(Image, RefusesBadReferencesAndPaths) {
  for (const char* reference : {"demo", "demo:1", "fairlead.local/demo", "fairlead.local/demo:", "fairlead.local:5000/demo"}) {
    ImageSpec s = small();
    s.reference = reference;
    EXPECT_FALSE(build_blobs(s)) << reference;
  }
  for (const char* path : {"", "/", "relative", "/a/../b"}) {
    ImageSpec s = small();
    s.files[0].path = path;
    EXPECT_FALSE(build_blobs(s)) << path;
  }
}

}  // namespace
}  // namespace fairlead::demo
