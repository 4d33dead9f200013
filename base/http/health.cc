#include "base/http/health.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <mutex>

#include "base/files.h"

namespace fairlead::http {
namespace {

Response text(unsigned status, std::string body) {
  Response r;
  r.status = status;
  r.headers.set("Content-Type", "text/plain; charset=utf-8");
  r.headers.set("X-Content-Type-Options", "nosniff");
  r.body = std::move(body);
  return r;
}

std::size_t count_open_fds() {
  DIR* const d = ::opendir("/proc/self/fd");
  if (d == nullptr) return 0;
  std::size_t n = 0;
  while (::readdir(d) != nullptr) ++n;
  ::closedir(d);
  return n < 3 ? 0 : n - 3;  // without ".", ".." and the folder itself
}

// Fields of /proc/self/stat after the command name, which may hold spaces: index 0 is the state (field 3 of proc(5)).
std::vector<std::string_view> stat_fields(std::string_view stat) {
  std::vector<std::string_view> out;
  const auto end_of_name = stat.rfind(')');
  if (end_of_name == std::string_view::npos) return out;
  for (std::string_view rest = stat.substr(end_of_name + 1); !rest.empty();) {
    const auto begin = rest.find_first_not_of(" \n");
    if (begin == std::string_view::npos) break;
    const auto end = std::min(rest.find_first_of(" \n", begin), rest.size());
    out.push_back(rest.substr(begin, end - begin));
    rest = rest.substr(end);
  }
  return out;
}

double number(const std::vector<std::string_view>& fields, std::size_t i) {
  std::uint64_t n = 0;
  if (i < fields.size()) std::from_chars(fields[i].data(), fields[i].data() + fields[i].size(), n);
  return static_cast<double>(n);
}

double boot_time() {
  const auto stat = read_file("/proc/stat");
  const auto at = stat ? stat->find("btime ") : std::string::npos;
  std::uint64_t n = 0;
  if (at != std::string::npos) std::from_chars(stat->data() + at + 6, stat->data() + stat->size(), n);
  return static_cast<double>(n);
}

}  // namespace

// The names and meanings of Prometheus's own client libraries.
struct Health::Process {
  explicit Process(metrics::Registry& r)
      : cpu(r.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")),
        resident(r.gauge("process_resident_memory_bytes", "Resident memory size in bytes.")),
        virtual_size(r.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")),
        open_fds(r.gauge("process_open_fds", "Number of open file descriptors.")),
        max_fds(r.gauge("process_max_fds", "Maximum number of open file descriptors.")),
        threads(r.gauge("process_threads", "Number of threads.")),
        start(r.gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")) {}

  void update() {
    const std::lock_guard lock(mutex);
    const auto stat = read_file("/proc/self/stat");
    const auto fields = stat_fields(stat ? std::string_view(*stat) : std::string_view{});
    const double ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
    cpu.inc(std::max(0.0, seconds(usage.ru_utime) + seconds(usage.ru_stime) - cpu.value()));
    threads.set(number(fields, 17));
    start.set(boot_time() + number(fields, 19) / ticks);
    virtual_size.set(number(fields, 20));
    resident.set(number(fields, 21) * static_cast<double>(::sysconf(_SC_PAGESIZE)));
    open_fds.set(static_cast<double>(count_open_fds()));
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) max_fds.set(static_cast<double>(limit.rlim_cur));
  }

  std::mutex mutex;
  metrics::Counter& cpu;
  metrics::Gauge &resident, &virtual_size, &open_fds, &max_fds, &threads, &start;
};

Health::Health(metrics::Registry* registry) : registry_(registry) {
  if (registry_ != nullptr) process_ = std::make_unique<Process>(*registry_);
  add_live("ping", [] { return Result<>{}; });
}
Health::~Health() = default;

void Health::add_live(std::string name, HealthCheck check) { checks_.push_back({std::move(name), std::move(check), false}); }
void Health::add_ready(std::string name, HealthCheck check) { checks_.push_back({std::move(name), std::move(check), true}); }

Response Health::report(std::string_view endpoint, std::string_view one, const Target& target) const {
  std::string lines;
  bool ok = true, found = one.empty();
  for (const auto& c : checks_) {
    if (c.ready_only && endpoint != "readyz") continue;
    if (!one.empty() && c.name != one) continue;
    found = true;
    bool excluded = false;
    for (const auto& [key, value] : target.query) excluded = excluded || (key == "exclude" && value == c.name);
    if (excluded) {
      lines += fmt::format("[+]{} excluded: ok\n", c.name);
      continue;
    }
    const auto r = c.run();
    ok = ok && r.has_value();
    lines += r ? fmt::format("[+]{} ok\n", c.name) : fmt::format("[-]{} failed: {}\n", c.name, r.error().message);
  }
  if (!found) return text(404, fmt::format("no such check: {}\n", one));
  if (!ok) return text(500, fmt::format("{}{} check failed\n", lines, endpoint));
  if (target.get("verbose")) return text(200, fmt::format("{}{} check passed\n", lines, endpoint));
  return text(200, "ok");
}

std::optional<Response> Health::handle(const Request& request) const {
  const auto target = Target::parse(request.target);
  if (!target) return std::nullopt;
  const std::string_view path = target->path;
  const bool metrics = registry_ != nullptr && path == "/metrics";
  std::string_view endpoint, one;
  for (const std::string_view e : {"healthz", "livez", "readyz"}) {
    if (!path.starts_with('/') || !path.substr(1).starts_with(e)) continue;
    const auto rest = path.substr(1 + e.size());
    if (!rest.empty() && rest.front() != '/') continue;
    endpoint = e;
    one = rest.empty() ? rest : rest.substr(1);
  }
  if (!metrics && endpoint.empty()) return std::nullopt;
  if (request.method != "GET" && request.method != "HEAD") {
    auto r = text(405, "only GET is allowed\n");
    r.headers.set("Allow", "GET, HEAD");
    return r;
  }
  if (!metrics) return report(endpoint, one, *target);
  process_->update();
  auto r = text(200, registry_->text());
  r.headers.set("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
  return r;
}

Handler Health::handler() {
  return [this](Request request) -> Task<Response> { return answer(std::move(request)); };
}

Task<Response> Health::answer(Request request) const {
  auto r = handle(request);
  co_return r ? std::move(*r) : text(404, "not found\n");
}

}  // namespace fairlead::http
