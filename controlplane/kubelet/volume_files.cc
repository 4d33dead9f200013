#include "controlplane/kubelet/volume_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/fd.h"
#include "base/files.h"
#include "base/random.h"
#include "base/scope_guard.h"

namespace fairlead::kubelet {
namespace {

namespace fs = std::filesystem;
constexpr unsigned kDefaultMode = 0644;
constexpr const char* kData = "..data";

// ---- content

class FileBuilder {
 public:
  FileBuilder(const corev1::Pod& pod, const VolumeObjects& objects, const PodFacts& facts)
      : pod_(pod), objects_(objects), facts_(facts) {}

  Result<> add(std::string path, std::string content, unsigned mode) {
    if (path.empty() || path[0] == '/' || path.size() > 4096)
      return fail(ErrorCode::invalid_argument, "invalid file path \"{}\"", path);
    for (const auto& part : fs::path(path))
      if (part == "..") return fail(ErrorCode::invalid_argument, "file path \"{}\" contains \"..\"", path);
    files_[path] = VolumeFile{path, std::move(content), mode & 0777};  // a later source wins
    return {};
  }

  template <typename Data, typename Items>
  Result<> add_items(const Data& data, const Items& items, bool optional, unsigned mode, const std::string& what) {
    if (items.empty()) {
      for (const auto& [key, value] : data) FL_CHECK(add(key, value, mode));
      return {};
    }
    for (const auto& item : items) {
      const auto it = data.find(item.key());
      if (it == data.end()) {
        if (optional) continue;
        return fail(ErrorCode::not_found, "{} has no key \"{}\"", what, item.key());
      }
      FL_CHECK(add(item.path(), it->second, item.has_mode() ? static_cast<unsigned>(item.mode()) : mode));
    }
    return {};
  }

  template <typename Items>
  Result<> add_config_map(const std::string& name, const Items& items, bool optional, unsigned mode) {
    const auto it = objects_.config_maps.find(name);
    if (it == objects_.config_maps.end())
      return optional ? Result<>{} : fail(ErrorCode::not_found, "configmap \"{}\" not found", name);
    std::map<std::string, std::string> data(it->second->data().begin(), it->second->data().end());
    data.insert(it->second->binarydata().begin(), it->second->binarydata().end());
    return add_items(data, items, optional, mode, fmt::format("configmap \"{}\"", name));
  }

  template <typename Items>
  Result<> add_secret(const std::string& name, const Items& items, bool optional, unsigned mode) {
    const auto it = objects_.secrets.find(name);
    if (it == objects_.secrets.end()) return optional ? Result<>{} : fail(ErrorCode::not_found, "secret \"{}\" not found", name);
    const std::map<std::string, std::string> data(it->second->data().begin(), it->second->data().end());
    return add_items(data, items, optional, mode, fmt::format("secret \"{}\"", name));
  }

  template <typename Items>
  Result<> add_downward(const Items& items, unsigned mode) {
    for (const auto& item : items) {
      Result<std::string> value = item.has_resourcefieldref() ? resource_value(pod_, item.resourcefieldref(),
                                                                               item.resourcefieldref().containername(), facts_)
                                                              : field_value(pod_, item.fieldref().fieldpath(), facts_);
      if (!value) return fail(std::move(value).error().with("downwardAPI file {}", item.path()));
      FL_CHECK(add(item.path(), std::move(*value), item.has_mode() ? static_cast<unsigned>(item.mode()) : mode));
    }
    return {};
  }

  Result<> add_projection(const corev1::VolumeProjection& p, unsigned mode) {
    if (p.has_configmap())
      FL_CHECK(
          add_config_map(p.configmap().localobjectreference().name(), p.configmap().items(), p.configmap().optional(), mode));
    if (p.has_secret())
      FL_CHECK(add_secret(p.secret().localobjectreference().name(), p.secret().items(), p.secret().optional(), mode));
    if (p.has_downwardapi()) FL_CHECK(add_downward(p.downwardapi().items(), mode));
    if (p.has_serviceaccounttoken()) {
      const auto& t = p.serviceaccounttoken();
      const auto it = objects_.tokens.find(token_key({t.audience(), t.has_expirationseconds() ? t.expirationseconds() : 3600}));
      if (it == objects_.tokens.end())
        return fail(ErrorCode::not_found, "no token for service account \"{}\"", pod_.spec().serviceaccountname());
      // Readable by the group only where the pod has one; the owner is root, so others need it otherwise.
      FL_CHECK(add(t.path(), it->second, pod_.spec().securitycontext().has_fsgroup() ? 0640u : mode));
    }
    if (p.has_clustertrustbundle() || p.has_podcertificate())
      return fail(ErrorCode::unimplemented, "clusterTrustBundle and podCertificate sources are not supported");
    return {};
  }

  std::vector<VolumeFile> take() {
    std::vector<VolumeFile> out;
    for (auto& [path, file] : files_) out.push_back(std::move(file));
    return out;
  }

 private:
  const corev1::Pod& pod_;
  const VolumeObjects& objects_;
  const PodFacts& facts_;
  std::map<std::string, VolumeFile> files_;
};

template <typename Source>
unsigned default_mode(const Source& source) {
  return source.has_defaultmode() ? static_cast<unsigned>(source.defaultmode()) : kDefaultMode;
}

// ---- disk

bool same_content(const std::string& folder, const std::vector<VolumeFile>& files) {
  const std::string current = folder + "/" + kData;
  std::error_code ec;
  std::size_t present = 0;
  for (fs::recursive_directory_iterator it(current + "/", ec), end; !ec && it != end; it.increment(ec))
    if (it->is_regular_file(ec)) ++present;
  if (ec || present != files.size() || !path_exists(current)) return false;
  for (const VolumeFile& f : files) {
    struct stat st {};
    const std::string path = current + "/" + f.path;
    if (::stat(path.c_str(), &st) != 0 || (st.st_mode & 0777) != f.mode ||
        static_cast<std::size_t>(st.st_size) != f.content.size())
      return false;
    const auto text = read_file(path);
    if (!text || *text != f.content) return false;
  }
  return true;
}

Result<> write_one(const std::string& path, const VolumeFile& f, std::optional<std::int64_t> group) {
  Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return fail_errno(errno, "create {}", path);
  std::string_view rest = f.content;
  while (!rest.empty()) {
    const ssize_t n = ::write(fd.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write {}", path);
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  if (group && ::fchown(fd.get(), static_cast<uid_t>(-1), static_cast<gid_t>(*group)) != 0)
    return fail_errno(errno, "chown {}", path);
  const unsigned mode = group ? f.mode | ((f.mode & 0400) >> 3) : f.mode;  // what the owner may read, the group may
  if (::fchmod(fd.get(), mode) != 0) return fail_errno(errno, "chmod {}", path);
  return {};
}

// The names that a container sees: links to the first component of each path below ..data.
Result<> link_names(const std::string& folder, const std::vector<VolumeFile>& files) {
  std::set<std::string> wanted;
  for (const VolumeFile& f : files) wanted.insert(fs::path(f.path).begin()->string());
  for (const std::string& name : wanted) {
    const std::string link = folder + "/" + name;
    if (::symlink((std::string(kData) + "/" + name).c_str(), link.c_str()) != 0 && errno != EEXIST)
      return fail_errno(errno, "link {}", link);
  }
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name.rfind("..", 0) != 0 && !wanted.contains(name)) ::unlink(it->path().c_str());
  }
  return {};
}

}  // namespace

std::string token_key(const TokenRequest& request) { return fmt::format("{}|{}", request.audience, request.expiration_seconds); }

bool is_api_volume(const corev1::Volume& volume) {
  const auto& s = volume.volumesource();
  return s.has_configmap() || s.has_secret() || s.has_downwardapi() || s.has_projected();
}

VolumeNeeds volume_needs(const corev1::Volume& volume) {
  VolumeNeeds out;
  const auto& s = volume.volumesource();
  if (s.has_configmap()) out.config_maps.push_back(s.configmap().localobjectreference().name());
  if (s.has_secret()) out.secrets.push_back(s.secret().secretname());
  for (const auto& p : s.projected().sources()) {
    if (p.has_configmap()) out.config_maps.push_back(p.configmap().localobjectreference().name());
    if (p.has_secret()) out.secrets.push_back(p.secret().localobjectreference().name());
    if (p.has_serviceaccounttoken())
      out.tokens.push_back({p.serviceaccounttoken().audience(), p.serviceaccounttoken().has_expirationseconds()
                                                                    ? p.serviceaccounttoken().expirationseconds()
                                                                    : 3600});
  }
  return out;
}

Result<std::vector<VolumeFile>> volume_files(const corev1::Pod& pod, const corev1::Volume& volume, const VolumeObjects& objects,
                                             const PodFacts& facts) {
  FileBuilder b(pod, objects, facts);
  const auto& s = volume.volumesource();
  if (s.has_configmap())
    FL_CHECK(b.add_config_map(s.configmap().localobjectreference().name(), s.configmap().items(), s.configmap().optional(),
                              default_mode(s.configmap())));
  if (s.has_secret())
    FL_CHECK(b.add_secret(s.secret().secretname(), s.secret().items(), s.secret().optional(), default_mode(s.secret())));
  if (s.has_downwardapi()) FL_CHECK(b.add_downward(s.downwardapi().items(), default_mode(s.downwardapi())));
  for (const auto& p : s.projected().sources()) FL_CHECK(b.add_projection(p, default_mode(s.projected())));
  return b.take();
}

Result<bool> write_volume(const std::string& folder, const std::vector<VolumeFile>& files, std::optional<std::int64_t> group) {
  FL_CHECK(make_dirs(folder));
  std::vector<VolumeFile> expected = files;
  if (group)
    for (VolumeFile& f : expected) f.mode |= (f.mode & 0400) >> 3;
  if (same_content(folder, expected)) return false;
  const std::string dated = "..version_" + random_suffix(SystemRandom::get(), 10);
  const std::string fresh = folder + "/" + dated;
  if (::mkdir(fresh.c_str(), 0755) != 0) return fail_errno(errno, "mkdir {}", fresh);
  auto undo = on_exit([&] {
    std::error_code ec;
    fs::remove_all(fresh, ec);
  });
  for (const VolumeFile& f : files) {
    const std::string path = fresh + "/" + f.path;
    FL_CHECK(make_dirs(fs::path(path).parent_path().string()));
    FL_CHECK(write_one(path, f, group));
  }
  const std::string data = folder + "/" + kData, next = folder + "/..data_tmp";
  std::error_code ec;
  const fs::path old = fs::read_symlink(data, ec);
  ::unlink(next.c_str());
  if (::symlink(dated.c_str(), next.c_str()) != 0) return fail_errno(errno, "link {}", next);
  if (::rename(next.c_str(), data.c_str()) != 0) return fail_errno(errno, "rename {}", data);
  undo.dismiss();
  FL_CHECK(link_names(folder, files));
  if (!old.empty() && old.string() != dated) fs::remove_all(fs::path(folder) / old, ec);
  return true;
}

}  // namespace fairlead::kubelet
