#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstring>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/process.h"
#include "lab/commands.h"
#include "lab/preflight.h"

namespace fairlead::lab {
namespace {

using namespace std::chrono_literals;

bool answers(const std::string& socket) {
  const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  if (socket.size() >= sizeof a.sun_path) return false;
  std::memcpy(a.sun_path, socket.c_str(), socket.size());
  return fd && ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0;
}

Result<> import_all(const std::string& socket, const std::string& dir) {
  const auto until = SystemClock::get().steady() + 30s;
  while (!answers(socket)) {
    if (SystemClock::get().steady() > until) return fail(ErrorCode::timeout, "containerd does not answer at {}", socket);
    ::usleep(20'000);
  }
  for (const auto& file : image_archives(dir)) {
    FL_TRY(const auto out, run_command({.argv = {"ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", file}}));
    if (!out.status.ok())
      return fail(ErrorCode::internal, "ctr images import {}: {}: {}", file, out.status.to_string(), out.stderr_text);
    log::info("imported {}", file);
  }
  return {};
}

}  // namespace

int run_lab_images(int argc, char** argv) {
  CLI::App app("Give a node's containerd the images of a folder", "fairlead lab-images");
  std::string socket, dir;
  app.add_option("--containerd", socket, "containerd's socket")->required();
  app.add_option("--images", dir, "Folder of OCI archives (*.tar)")->required();
  CLI11_PARSE(app, argc, argv);
  log::init({.component = "lab-images"});
  if (auto r = import_all(socket, dir); !r) {
    log::error("{}", r.error().message);
    return 1;
  }
  return 0;
}

}  // namespace fairlead::lab
