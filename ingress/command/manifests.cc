#include "ingress/command/manifests.h"

#include <sys/inotify.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <filesystem>

#include "base/files.h"
#include "kube/codec.h"
#include "kube/kinds.h"
#include "kube/object.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::ingress {
namespace {

namespace fs = std::filesystem;

template <typename T>
void put(Objects::Of<T>& into, std::unique_ptr<kube::Message> object) {
  auto typed = std::shared_ptr<const T>(static_cast<const T*>(object.release()));
  auto key = kube::key_of(typed->metadata());
  into[std::move(key)] = std::move(typed);
}

void take(const kube::Kind& kind, std::unique_ptr<kube::Message> object, Objects& out) {
  if (kind.kind == "Ingress") return put(out.ingresses, std::move(object));
  if (kind.kind == "IngressClass") return put(out.classes, std::move(object));
  if (kind.kind == "Service") return put(out.services, std::move(object));
  if (kind.kind == "EndpointSlice") return put(out.slices, std::move(object));
  if (kind.kind == "ConfigMap") return put(out.config_maps, std::move(object));
  auto& secret = static_cast<corev1::Secret&>(*object);
  for (const auto& [name, text] : secret.stringdata()) (*secret.mutable_data())[name] = text;
  secret.clear_stringdata();
  put(out.secrets, std::move(object));
}

Result<> take_json(const boost::json::value& v, Objects& out) {
  if (v.is_null()) return {};
  if (!v.is_object()) return fail(ErrorCode::invalid_argument, "a document is not an object");
  const auto* kind = v.as_object().if_contains("kind");
  const std::string_view name = kind && kind->is_string() ? std::string_view(kind->as_string()) : std::string_view();
  if (const auto* items = v.as_object().if_contains("items"); items && items->is_array() && name.ends_with("List")) {
    for (const auto& one : items->as_array()) FL_CHECK(take_json(one, out));
    return {};
  }
  static constexpr std::array<std::string_view, 6> kinds{"Ingress", "IngressClass", "Service", "EndpointSlice", "Secret", "ConfigMap"};
  if (std::find(kinds.begin(), kinds.end(), name) == kinds.end()) return {};
  auto object = v;
  auto& metadata = object.as_object()["metadata"];
  if (metadata.is_object() && name != "IngressClass" && !metadata.as_object().contains("namespace")) metadata.as_object()["namespace"] = "default";
  FL_TRY(auto decoded, kube::decode_object(object));
  take(*decoded.kind, std::move(decoded.object), out);
  return {};
}

Result<Objects> read_objects(const std::string& path) {
  FL_TRY(const auto text, read_file(path));
  FL_TRY(const auto documents, kube::parse_yaml(text));
  Objects out;
  for (const auto& d : documents) FL_CHECK(take_json(d, out));
  return out;
}

bool is_manifest(const fs::path& p) {
  const auto e = p.extension();
  return (e == ".yaml" || e == ".yml" || e == ".json") && !p.filename().string().starts_with('.');
}

std::vector<std::string> list_files(const std::vector<std::string>& paths, std::vector<std::string>* folders) {
  std::vector<std::string> out;
  for (const auto& path : paths) {
    std::error_code ec;
    if (!fs::is_directory(path, ec)) {
      out.push_back(path);
      if (folders) folders->push_back(fs::absolute(path).parent_path());
      continue;
    }
    if (folders) folders->push_back(path);
    for (fs::recursive_directory_iterator it(path, ec), end; it != end; it.increment(ec)) {
      if (ec) break;
      if (it->is_directory(ec) && folders) folders->push_back(it->path());
      if (it->is_regular_file(ec) && is_manifest(it->path())) out.push_back(it->path());
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

void merge(Objects& into, const Objects& from) {
  for (const auto& [k, v] : from.ingresses) into.ingresses[k] = v;
  for (const auto& [k, v] : from.classes) into.classes[k] = v;
  for (const auto& [k, v] : from.services) into.services[k] = v;
  for (const auto& [k, v] : from.slices) into.slices[k] = v;
  for (const auto& [k, v] : from.secrets) into.secrets[k] = v;
  for (const auto& [k, v] : from.config_maps) into.config_maps[k] = v;
}

}  // namespace

Result<Objects> Manifests::load(bool strict, Diagnostics& problems) {
  const auto names = list_files(paths_, nullptr);
  for (auto it = files_.begin(); it != files_.end();) it = std::binary_search(names.begin(), names.end(), it->first) ? std::next(it) : files_.erase(it);
  Objects out;
  for (const auto& name : names) {
    struct stat s {};
    if (::stat(name.c_str(), &s) != 0) {
      if (strict) return fail_errno(errno, "{}", name);
      continue;  // it has just gone
    }
    auto& file = files_[name];
    const auto modified = s.st_mtim.tv_sec * 1'000'000'000 + s.st_mtim.tv_nsec;
    const bool same = file.modified_ns == modified && file.size == static_cast<std::uint64_t>(s.st_size) && file.inode == s.st_ino;
    if (!same) {
      file.modified_ns = modified;
      file.size = static_cast<std::uint64_t>(s.st_size);
      file.inode = s.st_ino;
      auto read = read_objects(name);
      if (!read && strict) return fail(std::move(read).error().with("{}", name));
      file.problem = read ? "" : read.error().message;
      if (read) file.objects = std::move(*read);
    }
    if (!file.problem.empty()) problems.push_back({Severity::error, name, "", "Unreadable", file.problem + "; what it held before stays"});
    merge(out, file.objects);
  }
  return out;
}

Task<Result<>> watch_files(std::vector<std::string> paths, std::function<void()> changed) {
  const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) co_return fail_errno(errno, "inotify_init1");
  const auto executor = co_await net::this_coro::executor;
  net::posix::stream_descriptor stream(executor, fd);
  std::array<char, 16384> buffer;
  for (;;) {
    std::vector<std::string> folders;
    list_files(paths, &folders);
    for (const auto& f : folders)
      if (::inotify_add_watch(fd, f.c_str(), IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ATTRIB) < 0 && errno != ENOENT)
        co_return fail_errno(errno, "inotify_add_watch {}", f);
    const auto [ec, n] = co_await stream.async_read_some(net::buffer(buffer), use_result);
    if (ec) co_return fail(asio_error(ec, "inotify"));
    // Files often change together.
    auto slept = co_await sleep_for(std::chrono::milliseconds(10));
    if (!slept) co_return slept;
    while (::read(fd, buffer.data(), buffer.size()) > 0) {
    }
    changed();
  }
}

}  // namespace fairlead::ingress
