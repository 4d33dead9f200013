// A small disk of its own for a test: a tmpfs of so many MiB on a folder, gone with the object.
#pragma once

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <string>

#include "base/fd.h"

namespace fairlead::etcd {

class Tmpfs {
 public:
  Tmpfs(std::string path, int mebibytes) : path_(std::move(path)) {
    mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, ("mode=0700,size=" + std::to_string(mebibytes) + "m").c_str()) == 0;
    EXPECT_TRUE(mounted_) << "mount: " << ::strerror(errno);
  }
  ~Tmpfs() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  Tmpfs(const Tmpfs&) = delete;
  Tmpfs& operator=(const Tmpfs&) = delete;
  void resize(int mebibytes) {
    EXPECT_EQ(::mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT, ("size=" + std::to_string(mebibytes) + "m").c_str()), 0) << ::strerror(errno);
  }
  // Writes a file until nothing more fits.
  void fill_up() {
    Fd fd(::open((path_ + "/filler").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    const std::string block(4096, 'f');
    while (::write(fd.get(), block.data(), block.size()) > 0) {
    }
  }
  void empty_out() { ::unlink((path_ + "/filler").c_str()); }

 private:
  std::string path_;
  bool mounted_ = false;
};

}  // namespace fairlead::etcd
