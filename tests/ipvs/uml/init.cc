// The first process of the guest (User-Mode Linux): makes the usual mounts, lets the kernel find its modules, runs one program, prints
// its exit code on the console as "guest-exit: N", and turns the machine off. The root file system is the host's, read only;
// everything that is written lands in tmpfs and ends with the guest.
//
// The kernel hands words of its command line to us as environment: GUEST_RUN the program, GUEST_CWD where, GUEST_FILTER for --gtest_filter.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

void complain(const std::string& what) { std::printf("guest: %s: %s\n", what.c_str(), std::strerror(errno)); }

void mount_at(const char* type, const char* where) {
  if (::mount(type, where, type, 0, nullptr) != 0 && errno != EBUSY) complain(std::string("mount ") + type + " on " + where);
}

// Where the project lies may be below a folder that a mount of ours hides: `opened` is a handle from before, `path` the place.
void bring_back(int opened, const std::string& path) {
  struct stat there {};
  if (opened < 0 || ::stat(path.c_str(), &there) == 0) return;
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) ::mkdir(path.substr(0, slash).c_str(), 0755);
  ::mkdir(path.c_str(), 0755);
  const auto from = "/proc/self/fd/" + std::to_string(opened);
  if (::mount(from.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) complain("bring back " + path);
}

void write_to(const char* path, const std::string& text, mode_t mode) {
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0 || ::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) complain(std::string("write ") + path);
  if (fd >= 0) ::close(fd);
}

// The kernel's modules are in a folder of their package, not in /lib/modules, which may not even exist here.
void find_modules() {
  ::mkdir("/run/root", 0755);
  ::mkdir("/run/root/lib", 0755);
  if (::symlink("/usr/lib/uml/modules", "/run/root/lib/modules") != 0) complain("link to the modules");
  write_to("/run/modprobe", "#!/bin/sh\nexec /sbin/modprobe -d /run/root \"$@\"\n", 0755);
  write_to("/proc/sys/kernel/modprobe", "/run/modprobe", 0644);
  ::setenv("MODPROBE_OPTIONS", "-d /run/root", 1);
}

int run(const char* program, const char* first, const char* second) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(program, program, first, second, static_cast<char*>(nullptr));
    complain(std::string("run ") + program);
    std::fflush(stdout);
    ::_exit(127);
  }
  int status = 0;
  for (pid_t ended; (ended = ::wait(&status)) != child;)
    if (ended < 0 && errno != EINTR) return 126;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

int main() {
  if (::getpid() != 1) {
    std::fprintf(stderr, "this is the first process of a guest; run tests/ipvs/uml/run\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  ::setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
  const char* cwd = std::getenv("GUEST_CWD");
  const int project = cwd ? ::open(cwd, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
  mount_at("proc", "/proc");
  mount_at("sysfs", "/sys");
  mount_at("tmpfs", "/run");
  mount_at("tmpfs", "/tmp");
  mount_at("devtmpfs", "/dev");
  if (cwd) bring_back(project, cwd);
  find_modules();
  // Everything else is loaded by whoever needs it.
  if (run("/sbin/modprobe", "-a", "ipv6") != 0) std::printf("guest: IPv6 could not be loaded\n");
  if (cwd && ::chdir(cwd) != 0) complain(std::string("enter ") + cwd);
  const char* chosen = std::getenv("GUEST_FILTER");
  const std::string filter = std::string("--gtest_filter=") + (chosen ? chosen : "*");
  const char* program = std::getenv("GUEST_RUN");
  const int code = program ? run(program, filter.c_str(), "--gtest_color=no") : 125;
  std::printf("guest-exit: %d\n", code);
  std::fflush(stdout);
  ::sync();
  ::reboot(RB_POWER_OFF);
  return 1;
}
