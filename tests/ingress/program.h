// `fairlead ingress --manifests` as a process, and the folder that it serves from.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "base/process.h"
#include "tests/ingress/net.h"
#include "tests/ingress/world.h"

namespace fairlead::ingress {

inline std::string fairlead() { return std::string(std::getenv("FAIRLEAD_BIN")) + "/fairlead"; }

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/fairlead-ingress-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  // As editors and kubelets do it: a reader never sees half a file.
  void write(const std::string& name, const std::string& text) { ASSERT_TRUE(write_file_atomic(path_ + "/" + name, text)); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The running program; its ports are those that it says it listens on.
class Program {
 public:
  explicit Program(const std::string& manifests, std::vector<std::string> more = {}) {
    ProcessOptions o;
    o.argv = {fairlead(), "ingress", "--manifests", manifests, "--http-listen", "127.0.0.1:0", "--https-listen", "127.0.0.1:0", "--health-listen", "", "--access-log", "off"};
    o.argv.insert(o.argv.end(), more.begin(), more.end());
    log_ = manifests + "/../" + std::filesystem::path(manifests).filename().string() + ".log";
    o.stdout_file = o.stderr_file = log_;
    auto p = Process::start(o);
    if (!p) std::fprintf(stderr, "%s\n", p.error().message.c_str()), std::abort();
    process_ = std::move(*p);
    for (int i = 0; i < 2000 && http_.port == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const auto text = said();
      const auto at = text.find("listening on ");
      if (at == std::string::npos || text.find('\n', at) == std::string::npos) continue;
      const auto comma = text.find(", ", at);
      http_ = *SocketAddress::parse(text.substr(at + 13, comma - at - 13));
      https_ = *SocketAddress::parse(text.substr(comma + 2, text.find('\n', comma) - comma - 2));
    }
    if (http_.port == 0) std::fprintf(stderr, "does not start: %s\n", said().c_str()), std::abort();
  }
  ~Program() {
    if (process_.pid() > 0) end(SIGKILL);
    std::filesystem::remove(log_);
  }
  int end(int signal) {
    (void)process_.kill(signal);
    const auto status = process_.wait();
    return status ? status->code : -1;
  }
  pid_t pid() const { return process_.pid(); }
  std::string said() const { return read_file(log_).value_or(""); }
  const SocketAddress& http() const { return http_; }
  const SocketAddress& https() const { return https_; }

 private:
  std::string log_;
  Process process_;
  SocketAddress http_, https_;
};

}  // namespace fairlead::ingress
