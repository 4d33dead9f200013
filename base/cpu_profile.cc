#include "base/cpu_profile.h"

#include <elf.h>
#include <execinfo.h>
#include <link.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

namespace fairlead {
namespace {

constexpr std::size_t kWords = 1u << 20;
constexpr int kDeepest = 64;
constexpr int kOwnFrames = 2;  // the handler and the frame that the kernel put there
constexpr std::int64_t kPeriodNs = 10'000'000;

// What the signal handler writes to: each sample is its depth and that many addresses.
struct Samples {
  std::array<std::uintptr_t, kWords> words;
  std::atomic<std::size_t> used{0};
};
std::atomic<Samples*> g_samples{nullptr};
std::atomic<int> g_in_handler{0};
std::atomic<bool> g_running{false};

// Async-signal-safe: backtrace() has loaded what it needs before (see start()), and finds frames without taking locks.
void on_sigprof(int) {
  const int saved = errno;
  ++g_in_handler;
  if (Samples* s = g_samples.load()) {
    void* frames[kDeepest + kOwnFrames];
    const int n = ::backtrace(frames, kDeepest + kOwnFrames) - kOwnFrames;
    if (n > 0) {
      const auto at = s->used.fetch_add(static_cast<std::size_t>(n) + 1);
      if (at + static_cast<std::size_t>(n) + 1 <= kWords) {
        for (int i = 0; i < n; ++i) s->words[at + 1 + static_cast<std::size_t>(i)] = reinterpret_cast<std::uintptr_t>(frames[i + kOwnFrames]);
        s->words[at] = static_cast<std::uintptr_t>(n);
      }
    }
  }
  --g_in_handler;
  errno = saved;
}

// ---- profile.proto

class Message {
 public:
  void number(std::uint32_t field, std::uint64_t v) {
    varint(field << 3);
    varint(v);
  }
  void bytes(std::uint32_t field, std::string_view v) {
    varint(field << 3 | 2);
    varint(v.size());
    out_ += v;
  }
  void message(std::uint32_t field, const Message& m) { bytes(field, m.out_); }
  const std::string& text() const { return out_; }

 private:
  void varint(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) out_ += static_cast<char>(v | 0x80);
    out_ += static_cast<char>(v);
  }
  std::string out_;
};

struct Mapping {
  std::uint64_t start = 0, end = 0, offset = 0;
  std::string file, build_id;
};

std::string build_id_in(const dl_phdr_info& info) {
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const auto& p = info.dlpi_phdr[i];
    if (p.p_type != PT_NOTE) continue;
    const auto* at = reinterpret_cast<const char*>(info.dlpi_addr + p.p_vaddr);
    const auto* end = at + p.p_memsz;
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      const auto* n = reinterpret_cast<const ElfW(Nhdr)*>(at);
      const auto* name = at + sizeof *n;
      const auto* value = name + ((n->n_namesz + 3) & ~3u);
      if (value + n->n_descsz > end) break;
      if (n->n_type == NT_GNU_BUILD_ID && n->n_namesz == 4 && std::string_view(name, 3) == "GNU") {
        std::string hex;
        for (std::uint32_t b = 0; b < n->n_descsz; ++b) {
          constexpr std::string_view digits = "0123456789abcdef";
          const auto c = static_cast<unsigned char>(value[b]);
          hex += digits[c >> 4];
          hex += digits[c & 15];
        }
        return hex;
      }
      at = value + ((n->n_descsz + 3) & ~3u);
    }
  }
  return {};
}

// What of which file can be executed where.
std::vector<Mapping> mappings() {
  std::vector<Mapping> out;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& p = info->dlpi_phdr[i];
          if (p.p_type != PT_LOAD || !(p.p_flags & PF_X)) continue;
          Mapping m;
          m.start = info->dlpi_addr + p.p_vaddr;
          m.end = m.start + p.p_memsz;
          m.offset = p.p_offset;
          m.file = info->dlpi_name && *info->dlpi_name ? info->dlpi_name : "";
          m.build_id = build_id_in(*info);
          if (m.file.empty()) {
            char path[4096];
            const auto n = ::readlink("/proc/self/exe", path, sizeof path);
            m.file = n > 0 ? std::string(path, static_cast<std::size_t>(n)) : "[program]";
          }
          static_cast<std::vector<Mapping>*>(to)->push_back(std::move(m));
        }
        return 0;
      },
      &out);
  return out;
}

std::int64_t now_ns(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec;
}

class Profile {
 public:
  Profile() { text(""); }
  void add(const std::uintptr_t* frames, std::size_t depth) {
    std::vector<std::uint64_t> stack;
    for (std::size_t i = 0; i < depth; ++i) stack.push_back(location(frames[i] - (i > 0 ? 1 : 0)));  // callers: the call, not what follows it
    ++stacks_[stack];
  }
  std::string encode(std::int64_t begin, std::int64_t took) {
    Message out;
    out.message(1, value_type("samples", "count"));
    out.message(1, value_type("cpu", "nanoseconds"));
    for (const auto& [stack, count] : stacks_) {
      Message s;
      for (const auto id : stack) s.number(1, id);
      s.number(2, count);
      s.number(2, count * static_cast<std::uint64_t>(kPeriodNs));
      out.message(2, s);
    }
    for (std::size_t i = 0; i < mappings_.size(); ++i) {
      const auto& m = mappings_[i];
      Message one;
      one.number(1, i + 1);
      one.number(2, m.start);
      one.number(3, m.end);
      one.number(4, m.offset);
      one.number(5, text(m.file));
      one.number(6, text(m.build_id));
      out.message(3, one);
    }
    for (const auto& [address, id] : locations_) {
      Message l;
      l.number(1, id);
      for (std::size_t i = 0; i < mappings_.size(); ++i)
        if (address >= mappings_[i].start && address < mappings_[i].end) l.number(2, i + 1);
      l.number(3, address);
      out.message(4, l);
    }
    out.message(11, value_type("cpu", "nanoseconds"));
    out.number(9, static_cast<std::uint64_t>(begin));
    out.number(10, static_cast<std::uint64_t>(took));
    out.number(12, static_cast<std::uint64_t>(kPeriodNs));
    for (const auto& s : in_order_) out.bytes(6, s);
    return out.text();
  }

 private:
  std::uint64_t location(std::uint64_t address) { return locations_.emplace(address, locations_.size() + 1).first->second; }
  std::uint64_t text(const std::string& s) {
    const auto [it, fresh] = texts_.emplace(s, texts_.size());
    if (fresh) in_order_.push_back(s);
    return it->second;
  }
  Message value_type(const std::string& type, const std::string& unit) {
    Message m;
    m.number(1, text(type));
    m.number(2, text(unit));
    return m;
  }
  const std::vector<Mapping> mappings_ = mappings();
  std::map<std::string, std::uint64_t> texts_;
  std::vector<std::string> in_order_;
  std::map<std::uint64_t, std::uint64_t> locations_;
  std::map<std::vector<std::uint64_t>, std::uint64_t> stacks_;
};

bool set_timer(std::int64_t period_ns) {
  itimerval t{};
  t.it_interval.tv_usec = period_ns / 1000;
  t.it_value = t.it_interval;
  return ::setitimer(ITIMER_PROF, &t, nullptr) == 0;
}

}  // namespace

struct CpuProfile::Run {
  std::unique_ptr<Samples> samples = std::make_unique<Samples>();
  std::int64_t began = now_ns(CLOCK_REALTIME), began_steady = now_ns(CLOCK_MONOTONIC);
  ~Run() {
    set_timer(0);
    g_samples = nullptr;
    while (g_in_handler.load() != 0) {  // the last signal is still being handled by some thread
    }
    g_running = false;
  }
};

CpuProfile::CpuProfile(std::unique_ptr<Run> run) : run_(std::move(run)) {}
CpuProfile::CpuProfile(CpuProfile&&) noexcept = default;
CpuProfile::~CpuProfile() = default;

Result<CpuProfile> CpuProfile::start() {
  if (g_running.exchange(true)) return fail(ErrorCode::already_exists, "a processor profile is being taken already");
  auto run = std::make_unique<Run>();
  void* frames[4];
  [[maybe_unused]] const int n = ::backtrace(frames, 4);  // loads the unwinder, which the handler must not do
  struct sigaction action {};
  action.sa_handler = on_sigprof;
  action.sa_flags = SA_RESTART;
  // The handler stays: a signal that is late must not end the process.
  if (::sigaction(SIGPROF, &action, nullptr) < 0) return fail_errno(errno, "sigaction");
  g_samples = run->samples.get();
  if (!set_timer(kPeriodNs)) return fail_errno(errno, "setitimer");
  return CpuProfile(std::move(run));
}

std::string CpuProfile::finish() {
  set_timer(0);
  g_samples = nullptr;
  while (g_in_handler.load() != 0) {
  }
  const auto& s = *run_->samples;
  Profile profile;
  const std::size_t used = std::min(s.used.load(), kWords);
  for (std::size_t at = 0; at < used && s.words[at] > 0 && at + s.words[at] < used;) {
    profile.add(&s.words[at + 1], s.words[at]);
    at += s.words[at] + 1;
  }
  auto out = profile.encode(run_->began, now_ns(CLOCK_MONOTONIC) - run_->began_steady);
  run_.reset();
  return out;
}

}  // namespace fairlead
