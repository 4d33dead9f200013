#include "demo/image.h"

#include <archive.h>
#include <archive_entry.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <memory>
#include <set>

namespace fairlead::demo {
namespace {

namespace json = boost::json;

constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* kConfigType = "application/vnd.oci.image.config.v1+json";
constexpr const char* kLayerType = "application/vnd.oci.image.layer.v1.tar+gzip";

Result<std::string> sha256(std::string_view bytes) {
  unsigned char digest[32];
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) != 1)
    return fail(ErrorCode::internal, "sha256 failed");
  std::string out;
  for (const unsigned char b : digest) out += fmt::format("{:02x}", b);
  return out;
}

// Writes a tar archive into a string, gzipped or plain.
class TarWriter {
 public:
  explicit TarWriter(bool gzip) : archive_(archive_write_new(), archive_write_free) {
    archive_write_set_format_ustar(archive_.get());
    if (gzip) {
      archive_write_add_filter_gzip(archive_.get());
      archive_write_set_filter_option(archive_.get(), "gzip", "timestamp", nullptr);
      archive_write_set_filter_option(archive_.get(), "gzip", "compression-level", "6");
    }
    archive_write_set_bytes_in_last_block(archive_.get(), 1);
    archive_write_open(archive_.get(), &out_, nullptr, &TarWriter::append, nullptr);
  }

  Result<> add(const std::string& path, std::string_view content, unsigned mode, bool directory) {
    std::unique_ptr<archive_entry, decltype(&archive_entry_free)> entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), path.c_str());
    archive_entry_set_filetype(entry.get(), directory ? S_IFDIR : S_IFREG);
    archive_entry_set_perm(entry.get(), mode);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(content.size()));
    archive_entry_set_mtime(entry.get(), 0, 0);
    archive_entry_set_uid(entry.get(), 0);
    archive_entry_set_gid(entry.get(), 0);
    if (archive_write_header(archive_.get(), entry.get()) != ARCHIVE_OK) return failed(path);
    if (!content.empty() &&
        archive_write_data(archive_.get(), content.data(), content.size()) != static_cast<la_ssize_t>(content.size()))
      return failed(path);
    return {};
  }

  Result<std::string> finish() {
    if (archive_write_close(archive_.get()) != ARCHIVE_OK) return failed("close");
    return std::move(out_);
  }

 private:
  static la_ssize_t append(archive*, void* self, const void* bytes, size_t size) {
    static_cast<std::string*>(self)->append(static_cast<const char*>(bytes), size);
    return static_cast<la_ssize_t>(size);
  }
  Failure failed(std::string_view what) {
    const char* text = archive_error_string(archive_.get());
    return fail(ErrorCode::internal, "write tar entry {}: {}", what, text ? text : "unknown error");
  }

  std::string out_;
  std::unique_ptr<archive, decltype(&archive_write_free)> archive_;
};

Result<std::string> write_layer(const std::vector<ImageFile>& files, bool gzip) {
  TarWriter tar(gzip);
  std::set<std::string> made;
  for (const ImageFile& file : files) {
    if (file.path.size() < 2 || file.path[0] != '/' || file.path.find("/../") != std::string::npos)
      return fail(ErrorCode::invalid_argument, "image file \"{}\": the path must be absolute and free of \"..\"", file.path);
    const std::string path = file.path.substr(1);
    for (auto slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
      const std::string parent = path.substr(0, slash + 1);
      if (made.insert(parent).second) FL_CHECK(tar.add(parent, {}, 0755, true));
    }
    if (file.directory) made.insert(path + "/");
    FL_CHECK(tar.add(file.directory ? path + "/" : path, file.content, file.mode, file.directory));
  }
  return tar.finish();
}

json::array strings(const std::vector<std::string>& values) {
  json::array out;
  for (const std::string& v : values) out.emplace_back(v);
  return out;
}

json::object config_json(const ImageSpec& spec, const std::string& diff_id) {
  json::object config{{"Env", strings(spec.environment)}};
  if (!spec.entrypoint.empty()) config["Entrypoint"] = strings(spec.entrypoint);
  if (!spec.command.empty()) config["Cmd"] = strings(spec.command);
  if (!spec.user.empty()) config["User"] = spec.user;
  if (!spec.exposed_ports.empty()) {
    json::object ports;
    for (const std::string& p : spec.exposed_ports) ports[p] = json::object();
    config["ExposedPorts"] = std::move(ports);
  }
  config["WorkingDir"] = "/";
  return json::object{{"created", "1970-01-01T00:00:00Z"},
                      {"architecture", spec.architecture},
                      {"os", "linux"},
                      {"config", std::move(config)},
                      {"rootfs", json::object{{"type", "layers"}, {"diff_ids", json::array{json::value(diff_id)}}}}};
}

}  // namespace

std::string host_architecture() {
#if defined(__aarch64__)
  return "arm64";
#else
  return "amd64";
#endif
}

Result<ImageBlobs> build_blobs(const ImageSpec& spec) {
  const auto slash = spec.reference.rfind('/');
  const auto colon = spec.reference.rfind(':');
  if (slash == std::string::npos || colon == std::string::npos || colon < slash || colon + 1 == spec.reference.size())
    return fail(ErrorCode::invalid_argument, "image reference \"{}\" is not of the form registry/name:tag", spec.reference);
  ImageBlobs out;
  const auto put = [&](std::string bytes, const char* type) -> Result<json::object> {
    FL_TRY(const std::string digest, sha256(bytes));
    const auto size = static_cast<std::int64_t>(bytes.size());
    out.files["blobs/sha256/" + digest] = std::move(bytes);
    return json::object{{"mediaType", type}, {"digest", "sha256:" + digest}, {"size", size}};
  };
  FL_TRY(const std::string plain, write_layer(spec.files, false));
  FL_TRY(const std::string diff_id, sha256(plain));
  FL_TRY(std::string zipped, write_layer(spec.files, true));
  FL_TRY(json::object layer, put(std::move(zipped), kLayerType));
  FL_TRY(json::object config, put(json::serialize(config_json(spec, "sha256:" + diff_id)), kConfigType));
  json::object manifest{{"schemaVersion", 2}, {"mediaType", kManifestType}, {"config", config}, {"layers", json::array{layer}}};
  FL_TRY(json::object entry, put(json::serialize(manifest), kManifestType));
  out.manifest_digest = std::string(entry["digest"].as_string());
  entry["annotations"] = json::object{{"io.containerd.image.name", spec.reference},
                                      {"org.opencontainers.image.ref.name", spec.reference.substr(colon + 1)}};
  entry["platform"] = json::object{{"architecture", spec.architecture}, {"os", "linux"}};
  out.files["index.json"] = json::serialize(json::object{{"schemaVersion", 2}, {"manifests", json::array{entry}}});
  out.files["oci-layout"] = R"({"imageLayoutVersion":"1.0.0"})";
  return out;
}

Result<std::string> build_image(const ImageSpec& spec) {
  FL_TRY(const ImageBlobs blobs, build_blobs(spec));
  TarWriter tar(false);
  for (const auto& [path, content] : blobs.files) FL_CHECK(tar.add(path, content, 0644, false));
  return tar.finish();
}

}  // namespace fairlead::demo
