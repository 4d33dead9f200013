#include "lab/state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <charconv>
#include <filesystem>

#include "base/files.h"

namespace fairlead::lab {
namespace json = boost::json;
namespace fs = std::filesystem;

Result<ProcessId> identify(pid_t pid) {
  FL_TRY_CTX(const auto text, read_file(fmt::format("/proc/{}/stat", pid)), "process {}", pid);
  // The name (field 2) may hold spaces and brackets: count fields from its closing bracket.
  const auto close = text.rfind(')');
  if (close == std::string::npos || close + 2 >= text.size())
    return fail(ErrorCode::internal, "process {}: unreadable stat", pid);
  std::size_t at = close + 1;
  for (int field = 3; field < 22; ++field) at = text.find(' ', at + 1);
  ProcessId id{pid, 0};
  const char* first = text.data() + at + 1;
  if (std::from_chars(first, text.data() + text.size(), id.start_time).ec != std::errc{})
    return fail(ErrorCode::internal, "process {}: unreadable start time", pid);
  if (text[close + 2] == 'Z') return fail(ErrorCode::not_found, "process {} has ended", pid);
  return id;
}

bool alive(const ProcessId& id) {
  if (id.pid <= 0) return false;
  const auto now = identify(id.pid);
  return now && *now == id;
}

static json::object to_json(const ProcessId& id) { return {{"pid", id.pid}, {"startTime", id.start_time}}; }

static json::object to_json(const Options& o) {
  return {{"workers", o.workers},         {"stateDir", o.state_dir},
          {"kubeconfig", o.kubeconfig},   {"bridge", o.bridge},
          {"lan", o.lan.to_string()},     {"podCIDR", o.pod_cidr.to_string()},
          {"serviceCIDR", o.service_cidr.to_string()},
          {"binDir", o.bin_dir},          {"imagesDir", o.images_dir},
          {"logLevel", o.log_level},      {"podNetwork", o.pod_network}};
}

namespace {
// Reads members and remembers the first bad one, instead of throwing: a state file may be damaged.
class Reader {
 public:
  explicit Reader(const json::value* v) : v_(v) {}
  std::string text(std::string_view key) {
    const auto* m = member(key);
    if (m == nullptr || !m->is_string()) return note(key), std::string();
    return std::string(m->as_string());
  }
  std::uint64_t number(std::string_view key) {
    const auto* m = member(key);
    if (m != nullptr && m->is_uint64()) return m->as_uint64();
    if (m != nullptr && m->is_int64() && m->as_int64() >= 0) return static_cast<std::uint64_t>(m->as_int64());
    return note(key), 0;
  }
  Prefix prefix(std::string_view key) {
    auto p = Prefix::parse(text(key));
    if (!p) return note(key), Prefix();
    return *p;
  }
  ProcessId process(std::string_view key) {
    Reader r(member(key));
    const ProcessId id{static_cast<pid_t>(r.number("pid")), r.number("startTime")};
    if (!r.bad_.empty()) note(key);
    return id;
  }
  const json::value* member(std::string_view key) const {
    return v_ != nullptr && v_->is_object() ? v_->as_object().if_contains(key) : nullptr;
  }
  const std::string& bad() const { return bad_; }

 private:
  void note(std::string_view key) {
    if (bad_.empty()) bad_ = key;
  }
  const json::value* v_;
  std::string bad_;
};
}  // namespace

static std::string state_file(const std::string& dir) { return dir + "/lab.json"; }

Result<> save_state(const State& s) {
  json::object inits;
  for (const auto& [name, id] : s.node_inits) inits[name] = to_json(id);
  const json::object all{{"version", 1}, {"options", to_json(s.options)}, {"created", s.created},
                         {"supervisor", to_json(s.supervisor)}, {"nodeInits", inits}};
  return write_file_atomic(state_file(s.options.state_dir), json::serialize(all) + "\n", 0644);
}

Result<State> load_state(const std::string& dir) {
  const auto path = state_file(dir);
  FL_TRY(const auto text, read_file(path));
  boost::system::error_code ec;
  const json::value v = json::parse(text, ec);
  if (ec) return fail(ErrorCode::data_loss, "{}: {}", path, ec.message());
  Reader r(&v);
  Reader o(r.member("options"));
  State s;
  s.options = {.workers = static_cast<unsigned>(o.number("workers")),
               .state_dir = o.text("stateDir"),
               .kubeconfig = o.text("kubeconfig"),
               .bridge = o.text("bridge"),
               .lan = o.prefix("lan"),
               .pod_cidr = o.prefix("podCIDR"),
               .service_cidr = o.prefix("serviceCIDR"),
               .bin_dir = o.text("binDir"),
               .images_dir = o.text("imagesDir"),
               .log_level = o.text("logLevel"),
               .pod_network = o.text("podNetwork")};
  s.created = r.text("created");
  s.supervisor = r.process("supervisor");
  if (const auto* inits = r.member("nodeInits"); inits != nullptr && inits->is_object()) {
    Reader each(inits);
    for (const auto& kv : inits->as_object()) s.node_inits[std::string(kv.key())] = each.process(kv.key());
  }
  if (!r.bad().empty() || !o.bad().empty())
    return fail(ErrorCode::data_loss, "{}: \"{}\" is missing or malformed", path, r.bad().empty() ? o.bad() : r.bad());
  return s;
}

static std::string status_file(const Node& node) { return node.dir + "/status.json"; }

Result<> save_node_status(const Node& node, const std::vector<ComponentStatus>& components) {
  json::array list;
  for (const auto& c : components)
    list.push_back(json::object{{"name", c.name}, {"pid", c.pid}, {"restarts", c.restarts}, {"state", c.state},
                                {"lastExit", c.last_exit}, {"started", c.started}});
  return write_file_atomic(status_file(node), json::serialize(list) + "\n", 0644);
}

Result<std::vector<ComponentStatus>> load_node_status(const Node& node) {
  FL_TRY(const auto text, read_file(status_file(node)));
  boost::system::error_code ec;
  const json::value v = json::parse(text, ec);
  if (ec || !v.is_array()) return fail(ErrorCode::data_loss, "{}: malformed", status_file(node));
  std::vector<ComponentStatus> out;
  for (const auto& item : v.as_array()) {
    Reader r(&item);
    out.push_back({r.text("name"), static_cast<pid_t>(r.number("pid")), static_cast<unsigned>(r.number("restarts")),
                   r.text("state"), r.text("lastExit"), r.text("started")});
    if (!r.bad().empty()) return fail(ErrorCode::data_loss, "{}: \"{}\" is malformed", status_file(node), r.bad());
  }
  return out;
}

static std::string pid_namespace(pid_t pid) {
  std::error_code ec;
  return fs::read_symlink(fmt::format("/proc/{}/ns/pid", pid), ec).string();
}

std::map<pid_t, pid_t> host_pids(const ProcessId& node_init) {
  std::map<pid_t, pid_t> out;
  if (!alive(node_init)) return out;
  const auto wanted = pid_namespace(node_init.pid);
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator("/proc", ec)) {
    const auto name = entry.path().filename().string();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc{} || pid_namespace(pid) != wanted) continue;
    const auto status = read_file(fmt::format("/proc/{}/status", pid));
    if (!status) continue;
    const auto line = status->find("\nNSpid:");
    if (line == std::string::npos) continue;
    const auto end = status->find('\n', line + 1);
    const auto last = status->find_last_of("\t ", end - 1);
    pid_t inner = 0;
    std::from_chars(status->data() + last + 1, status->data() + end, inner);
    out[inner] = pid;
  }
  return out;
}

std::string lock_path(const std::string& state_dir) { return state_dir + ".lock"; }

Result<Fd> lock_lab(const std::string& state_dir) {
  const auto path = lock_path(state_dir);
  FL_CHECK(make_dirs(fs::path(path).parent_path().string()));
  for (;;) {
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd) return fail_errno(errno, "open {}", path);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK)
        return fail(ErrorCode::unavailable, "another fairlead up or down is working on {} (it holds {})", state_dir, path);
      return fail_errno(errno, "lock {}", path);
    }
    // `down` removes the lock file: make sure that what we locked is what is there.
    struct stat held {}, there {};
    if (::fstat(fd.get(), &held) == 0 && ::stat(path.c_str(), &there) == 0 && held.st_ino == there.st_ino) return fd;
  }
}

}  // namespace fairlead::lab
