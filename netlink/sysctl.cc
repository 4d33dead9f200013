#include "netlink/sysctl.h"

#include <fcntl.h>

#include <cerrno>

#include "base/fd.h"
#include "base/files.h"

namespace fairlead::netlink {
namespace {

Result<> check_key(const std::string& key) {
  const std::string framed = "/" + key + "/";
  if (key.empty() || framed.find("/../") != std::string::npos || framed.find("//") != std::string::npos ||
      framed.find("/./") != std::string::npos || key.find('\0') != std::string::npos)
    return fail(ErrorCode::invalid_argument, "\"{}\" is not a kernel parameter", key);
  return {};
}

std::string trimmed(std::string s) {
  while (!s.empty() && (s.back() == '\n' || s.back() == ' ' || s.back() == '\t')) s.pop_back();
  return s;
}

}  // namespace

Result<std::string> read_sysctl(const std::string& key) {
  FL_CHECK(check_key(key));
  FL_TRY(auto text, read_file("/proc/sys/" + key, 1 << 20));
  return trimmed(std::move(text));
}

Result<> write_sysctl(const std::string& key, const std::string& value) {
  FL_CHECK(check_key(key));
  const std::string path = "/proc/sys/" + key;
  if (auto now = read_sysctl(key); now && *now == trimmed(value)) return {};
  Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open {}", path);
  if (::write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) return fail_errno(errno, "write \"{}\" to {}", value, path);
  return {};
}

Result<std::string> sysctl_key(std::string_view name) {
  std::string key(name);
  const auto first = key.find_first_of("./");
  if (first != std::string::npos && key[first] == '.')
    for (char& c : key) c = c == '.' ? '/' : c == '/' ? '.' : c;
  FL_CHECK(check_key(key));
  return key;
}

}  // namespace fairlead::netlink
