#include "controlplane/kubelet/volumes.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "controlplane/kubelet/volume_files.h"
#include "kube/quantity.h"

namespace fairlead::kubelet {
namespace {

namespace fs = std::filesystem;

const char* plugin_of(const corev1::Volume& v) {
  const auto& s = v.volumesource();
  return s.has_configmap() ? "configmap" : s.has_secret() ? "secret" : s.has_downwardapi() ? "downward-api" : "projected";
}

std::optional<std::int64_t> group_of(const corev1::Pod& pod) {
  return pod.spec().securitycontext().has_fsgroup() ? std::optional(pod.spec().securitycontext().fsgroup()) : std::nullopt;
}

// "\040" and its kind, as mountinfo writes spaces.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t k) { return i + k < text.size() && text[i + k] >= '0' && text[i + k] <= '7'; };
    if (text[i] == '\\' && digit(1) && digit(2) && digit(3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::vector<std::string> mounts_below(std::string_view mountinfo, const std::string& folder) {
  std::vector<std::string> out;
  while (!mountinfo.empty()) {
    const auto eol = mountinfo.find('\n');
    std::string_view line = mountinfo.substr(0, eol);
    mountinfo.remove_prefix(eol == std::string_view::npos ? mountinfo.size() : eol + 1);
    for (int skip = 0; skip < 4 && !line.empty(); ++skip) {  // id, parent, device, root
      const auto space = line.find(' ');
      line = space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
    }
    const std::string path = unescape(line.substr(0, line.find(' ')));
    if (path == folder || path.rfind(folder + "/", 0) == 0) out.push_back(path);
  }
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return a.size() != b.size() ? a.size() > b.size() : a < b; });
  return out;
}

Result<> check_host_path(const std::string& path, const std::string& type) {
  if (path.empty() || path[0] != '/') return fail(ErrorCode::invalid_argument, "hostPath \"{}\" is not absolute", path);
  struct stat st {};
  const bool there = ::stat(path.c_str(), &st) == 0;
  if (type.empty()) return {};
  if (type == "DirectoryOrCreate") {
    if (!there) return make_dirs(path);
    if (S_ISDIR(st.st_mode)) return {};
  } else if (type == "FileOrCreate") {
    if (!there) return write_file_atomic(path, "");
    if (S_ISREG(st.st_mode)) return {};
  } else if (!there) {
    return fail(ErrorCode::not_found, "hostPath {} does not exist", path);
  } else if ((type == "Directory" && S_ISDIR(st.st_mode)) || (type == "File" && S_ISREG(st.st_mode)) ||
             (type == "Socket" && S_ISSOCK(st.st_mode)) || (type == "CharDevice" && S_ISCHR(st.st_mode)) ||
             (type == "BlockDevice" && S_ISBLK(st.st_mode))) {
    return {};
  }
  return fail(ErrorCode::failed_precondition, "hostPath {} is not of type {}", path, type);
}

Task<Result<VolumePaths>> VolumeManager::prepare(std::shared_ptr<const corev1::Pod> pod, PodFacts facts) {
  VolumePaths out;
  for (const auto& volume : pod->spec().volumes()) {
    auto path = co_await prepare_one(pod, volume, facts);
    if (!path) co_return fail(std::move(path).error().with("volume \"{}\"", volume.name()));
    out[volume.name()] = std::move(*path);
  }
  co_return out;
}

Task<Result<std::string>> VolumeManager::prepare_one(std::shared_ptr<const corev1::Pod> pod, const corev1::Volume& volume,
                                                     PodFacts facts) {
  const auto& source = volume.volumesource();
  if (is_api_volume(volume)) {
    auto r = co_await write_api_volume(pod, volume, std::move(facts));
    co_return r;
  }
  if (source.has_hostpath()) {
    FL_CO_CHECK(check_host_path(source.hostpath().path(), source.hostpath().type()));
    co_return source.hostpath().path();
  }
  if (source.has_emptydir() || source.ByteSizeLong() == 0) co_return empty_dir(*pod, volume);
  std::string kind = "this kind";
  std::vector<const google::protobuf::FieldDescriptor*> set;
  source.GetReflection()->ListFields(source, &set);
  if (!set.empty()) kind = set.front()->name();
  co_return fail(ErrorCode::unimplemented, "volumes of kind {} are not supported on this node", kind);
}

Task<Result<std::string>> VolumeManager::write_api_volume(std::shared_ptr<const corev1::Pod> pod, const corev1::Volume& volume,
                                                          PodFacts facts) {
  VolumeObjects objects;
  const VolumeNeeds needs = volume_needs(volume);
  const std::string& ns = pod->metadata().namespace_();
  const std::string& uid = pod->metadata().uid();
  for (const std::string& name : needs.config_maps) {
    auto r = co_await objects_->config_map(uid, ns, name);
    if (r)
      objects.config_maps[name] = std::move(*r);
    else if (r.error().code != ErrorCode::not_found)
      co_return fail(std::move(r).error());
  }
  for (const std::string& name : needs.secrets) {
    auto r = co_await objects_->secret(uid, ns, name);
    if (r)
      objects.secrets[name] = std::move(*r);
    else if (r.error().code != ErrorCode::not_found)
      co_return fail(std::move(r).error());
  }
  for (const TokenRequest& request : needs.tokens) {
    auto r = co_await objects_->token(pod, request);
    if (!r) co_return fail(std::move(r).error());
    objects.tokens[token_key(request)] = std::move(*r);
  }
  FL_CO_TRY(const auto files, volume_files(*pod, volume, objects, facts));
  const std::string folder = volume_dir(settings_, uid, plugin_of(volume), volume.name());
  FL_CO_CHECK(write_volume(folder, files, group_of(*pod)));
  co_return folder;
}

Result<std::string> VolumeManager::empty_dir(const corev1::Pod& pod, const corev1::Volume& volume) {
  const auto& source = volume.volumesource().emptydir();
  const std::string folder = volume_dir(settings_, pod.metadata().uid(), "empty-dir", volume.name());
  const bool fresh = !path_exists(folder);
  FL_CHECK(make_dirs(folder));
  if (source.medium() == "Memory") {
    FL_TRY(const std::string mountinfo, read_file("/proc/self/mountinfo"));
    if (mounts_below(mountinfo, folder).empty()) {
      std::string options = "mode=0777";
      if (source.has_sizelimit()) {
        FL_TRY_CTX(const auto limit, kube::Quantity::parse(source.sizelimit().string()), "sizeLimit");
        options += fmt::format(",size={}", limit.value());
      }
      if (::mount("tmpfs", folder.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0)
        return fail_errno(errno, "mount tmpfs on {}", folder);
    }
  } else if (!source.medium().empty()) {
    return fail(ErrorCode::unimplemented, "emptyDir medium \"{}\" is not supported", source.medium());
  }
  if (!fresh) return folder;
  if (::chmod(folder.c_str(), 0777) != 0) return fail_errno(errno, "chmod {}", folder);
  if (const auto group = group_of(pod)) {
    // New files belong to the pod's group too.
    if (::chown(folder.c_str(), static_cast<uid_t>(-1), static_cast<gid_t>(*group)) != 0 || ::chmod(folder.c_str(), 02777) != 0)
      return fail_errno(errno, "chown {}", folder);
  }
  return folder;
}

Result<> VolumeManager::teardown(const std::string& pod_uid) {
  objects_->release(pod_uid);
  const std::string folder = pod_dir(settings_, pod_uid);
  if (pod_uid.empty() || pod_uid.find('/') != std::string::npos)
    return fail(ErrorCode::invalid_argument, "pod uid \"{}\"", pod_uid);
  FL_TRY(const std::string mountinfo, read_file("/proc/self/mountinfo"));
  for (const std::string& mount : mounts_below(mountinfo, folder))
    if (::umount2(mount.c_str(), UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT)
      return fail_errno(errno, "unmount {}", mount);
  std::error_code ec;
  fs::remove_all(folder, ec);
  if (ec) return fail_errno(ec.value(), "remove {}", folder);
  return {};
}

}  // namespace fairlead::kubelet
