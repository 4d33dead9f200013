#include "cni/ipam/lmdb_book.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/files.h"
#include "base/scope_guard.h"

namespace fairlead::cni {
namespace {

// Address space only; the file grows with its content. A /16 with every address leased needs about 16 MiB.
constexpr std::size_t kMapBytes = 256u << 20;

Error lmdb_error(int rc, std::string_view what) {
  if (rc > 0) return errno_error(rc, what);
  return Error{rc == MDB_MAP_FULL ? ErrorCode::resource_exhausted : ErrorCode::data_loss, fmt::format("{}: {}", what, ::mdb_strerror(rc)), 0};
}

// Keys: "a" family address -> lease; "o" container NUL interface NUL family address -> ""; "l" family -> address;
// "r" container NUL interface NUL -> record.
std::string bytes_of(const IpAddress& ip) {
  std::string s(1, static_cast<char>(ip.family()));
  s.append(reinterpret_cast<const char*>(ip.bytes().data()), ip.bytes().size());
  return s;
}

std::optional<IpAddress> ip_of(std::string_view s) {
  if (s.empty()) return std::nullopt;
  const auto ip = IpAddress::from_bytes({reinterpret_cast<const std::uint8_t*>(s.data()) + 1, s.size() - 1});
  if (!ip || static_cast<char>(ip->family()) != s[0]) return std::nullopt;
  return *ip;
}

std::string address_key(const IpAddress& ip) { return "a" + bytes_of(ip); }
std::string owner_prefix(const Owner& o) { return "o" + o.container_id + '\0' + o.ifname + '\0'; }
std::string record_key(const Owner& o) { return "r" + o.container_id + '\0' + o.ifname + '\0'; }
std::string last_key(Family f) { return std::string("l") + static_cast<char>(f); }

// Value: released (1 byte), since (8 bytes, host order: the file never leaves the machine), then three NUL-ended strings.
std::string encode(const Lease& l) {
  std::string v(1, l.released ? 1 : 0);
  const std::int64_t since = l.since.count();
  v.append(reinterpret_cast<const char*>(&since), sizeof since);
  for (const std::string* s : {&l.owner.container_id, &l.owner.ifname, &l.netns}) v.append(*s).push_back('\0');
  return v;
}

Result<Lease> decode(const IpAddress& ip, std::string_view v) {
  Lease l{.ip = ip};
  std::int64_t since = 0;
  if (v.size() < 1 + sizeof since) return fail(ErrorCode::data_loss, "lease of {} is damaged", ip.to_string());
  l.released = v[0] != 0;
  std::memcpy(&since, v.data() + 1, sizeof since);
  l.since = BootTime(since);
  v.remove_prefix(1 + sizeof since);
  for (std::string* s : {&l.owner.container_id, &l.owner.ifname, &l.netns}) {
    const auto end = v.find('\0');
    if (end == std::string_view::npos) return fail(ErrorCode::data_loss, "lease of {} is damaged", ip.to_string());
    *s = std::string(v.substr(0, end));
    v.remove_prefix(end + 1);
  }
  return l;
}

MDB_val val(std::string_view s) { return {s.size(), const_cast<char*>(s.data())}; }
std::string_view view(const MDB_val& v) { return {static_cast<const char*>(v.mv_data), v.mv_size}; }

class Book final : public LeaseBook {
 public:
  Book(MDB_txn* txn, MDB_dbi dbi) : txn_(txn), dbi_(dbi) {}

  Result<std::optional<Lease>> find(const IpAddress& ip) override {
    FL_TRY(const auto v, get(address_key(ip)));
    if (!v) return std::optional<Lease>();
    FL_TRY(auto lease, decode(ip, *v));
    return std::optional<Lease>(std::move(lease));
  }

  Result<std::vector<IpAddress>> held_by(const Owner& owner) override {
    std::vector<IpAddress> out;
    const auto take = [&](std::string_view key, std::string_view) -> Result<> {
      const auto ip = ip_of(key);
      if (!ip) return fail(ErrorCode::data_loss, "lease index of container {} is damaged", owner.container_id);
      out.push_back(*ip);
      return {};
    };
    FL_CHECK(scan(owner_prefix(owner), take));
    return out;
  }

  Result<> put(const Lease& l) override {
    FL_TRY(const auto before, find(l.ip));
    if (before && !before->released) FL_CHECK(del(owner_prefix(before->owner) + bytes_of(l.ip)));
    FL_CHECK(set(address_key(l.ip), encode(l)));
    if (!l.released) FL_CHECK(set(owner_prefix(l.owner) + bytes_of(l.ip), ""));
    return {};
  }

  Result<> erase(const IpAddress& ip) override {
    FL_TRY(const auto before, find(ip));
    if (before && !before->released) FL_CHECK(del(owner_prefix(before->owner) + bytes_of(ip)));
    return del(address_key(ip));
  }

  Result<std::optional<IpAddress>> last_of(Family family) override {
    FL_TRY(const auto v, get(last_key(family)));
    return v ? ip_of(*v) : std::nullopt;
  }
  Result<> set_last(const IpAddress& ip) override { return set(last_key(ip.family()), bytes_of(ip)); }

  Result<std::optional<std::string>> record(const Owner& owner) override { return get(record_key(owner)); }
  Result<> set_record(const Owner& owner, const std::string& text) override {
    return text.empty() ? del(record_key(owner)) : set(record_key(owner), text);
  }
  Result<std::vector<Owner>> recorded() override {
    std::vector<Owner> out;
    const auto take = [&](std::string_view key, std::string_view) -> Result<> {
      const auto end = key.find('\0');
      if (end == std::string_view::npos || key.back() != '\0' || end + 1 >= key.size()) return fail(ErrorCode::data_loss, "the lease store has a damaged key");
      out.push_back({std::string(key.substr(0, end)), std::string(key.substr(end + 1, key.size() - end - 2))});
      return {};
    };
    FL_CHECK(scan("r", take));
    return out;
  }

  Result<std::vector<Lease>> all() override {
    std::vector<Lease> out;
    const auto take = [&](std::string_view key, std::string_view value) -> Result<> {
      const auto ip = ip_of(key);
      if (!ip) return fail(ErrorCode::data_loss, "the lease store has a damaged key");
      FL_TRY(auto lease, decode(*ip, value));
      out.push_back(std::move(lease));
      return {};
    };
    FL_CHECK(scan("a", take));
    return out;
  }

 private:
  Result<std::optional<std::string>> get(const std::string& key) {
    MDB_val k = val(key), v{};
    const int rc = ::mdb_get(txn_, dbi_, &k, &v);
    if (rc == MDB_NOTFOUND) return std::optional<std::string>();
    if (rc != 0) return fail(lmdb_error(rc, "read lease store"));
    return std::optional<std::string>(std::string(view(v)));
  }
  Result<> set(const std::string& key, const std::string& value) {
    MDB_val k = val(key), v = val(value);
    if (const int rc = ::mdb_put(txn_, dbi_, &k, &v, 0); rc != 0) return fail(lmdb_error(rc, "write lease store"));
    return {};
  }
  Result<> del(const std::string& key) {
    MDB_val k = val(key);
    if (const int rc = ::mdb_del(txn_, dbi_, &k, nullptr); rc != 0 && rc != MDB_NOTFOUND) return fail(lmdb_error(rc, "write lease store"));
    return {};
  }
  // f(key behind the prefix, value) in key order.
  Result<> scan(const std::string& prefix, const std::function<Result<>(std::string_view, std::string_view)>& f) {
    MDB_cursor* cursor = nullptr;
    if (const int rc = ::mdb_cursor_open(txn_, dbi_, &cursor); rc != 0) return fail(lmdb_error(rc, "read lease store"));
    const auto close = on_exit([&] { ::mdb_cursor_close(cursor); });
    MDB_val k = val(prefix), v{};
    int rc = ::mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    for (; rc == 0 && view(k).starts_with(prefix); rc = ::mdb_cursor_get(cursor, &k, &v, MDB_NEXT))
      FL_CHECK(f(view(k).substr(prefix.size()), view(v)));
    if (rc != 0 && rc != MDB_NOTFOUND) return fail(lmdb_error(rc, "read lease store"));
    return {};
  }

  MDB_txn* txn_;
  MDB_dbi dbi_;
};

std::string file_of(const std::string& folder, const std::string& network, const StoreScope& s) {
  return fmt::format("{}/{}/leases-{}-{}.mdb", folder, network, s.boot_id, s.netns_inode);
}

// Files of other boots are dead by definition; those of this boot may belong to another host namespace.
void remove_other_boots(const std::string& folder, const std::string& boot_id) {
  std::error_code ec;
  for (std::filesystem::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("leases-") && !name.starts_with("leases-" + boot_id + "-")) ::unlink(it->path().c_str());
  }
}

}  // namespace

CniResult<StoreScope> current_scope() {
  StoreScope s;
  CNI_TRY(s.boot_id, lift(read_file("/proc/sys/kernel/random/boot_id", 100), Code::io_failure));
  while (!s.boot_id.empty() && s.boot_id.back() == '\n') s.boot_id.pop_back();
  struct stat st;
  if (::stat("/proc/thread-self/ns/net", &st) != 0)
    return cni_fail(Code::io_failure, "stat /proc/thread-self/ns/net: {}", std::strerror(errno));
  s.netns_inode = st.st_ino;
  return s;
}

BootTime boot_time_now() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return BootTime(t.tv_sec * 1000 + t.tv_nsec / 1'000'000);
}

void LeaseStore::Close::operator()(MDB_env* e) const { ::mdb_env_close(e); }

CniResult<LeaseStore> LeaseStore::open_path(const std::string& path) {
  LeaseStore s;
  s.path_ = path;
  MDB_env* env = nullptr;
  int rc = ::mdb_env_create(&env);
  if (rc != 0) return cni_fail(from_error(lmdb_error(rc, "create lease store"), Code::io_failure));
  s.env_.reset(env);
  if (rc == 0) rc = ::mdb_env_set_mapsize(env, kMapBytes);
  if (rc == 0) rc = ::mdb_env_open(env, path.c_str(), MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOMEMINIT, 0600);
  if (rc != 0) return cni_fail(from_error(lmdb_error(rc, "open lease store " + path), Code::io_failure));
  // A process killed while reading leaves its slot in the lock file, which would keep old pages from being used again.
  int dead = 0;
  ::mdb_reader_check(env, &dead);
  return s;
}

CniResult<LeaseStore> LeaseStore::open(const std::string& folder, const std::string& network, const StoreScope& scope) {
  const std::string path = file_of(folder, network, scope);
  if (!path_exists(path)) {
    const std::string parent = folder + "/" + network;
    CNI_CHECK(lift(make_dirs(parent, 0700), Code::io_failure));
    remove_other_boots(parent, scope.boot_id);
  }
  return open_path(path);
}

CniResult<std::optional<LeaseStore>> LeaseStore::open_existing(const std::string& folder, const std::string& network, const StoreScope& scope) {
  const std::string path = file_of(folder, network, scope);
  if (!path_exists(path)) return std::optional<LeaseStore>();
  CNI_TRY(auto s, open_path(path));
  return std::optional<LeaseStore>(std::move(s));
}

CniResult<Fd> LeaseStore::lock(const Owner& owner) const {
  using namespace std::chrono_literals;
  Fd fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return cni_fail(Code::io_failure, "open {}: {}", path_, std::strerror(errno));
  // One byte per owner, far behind what the file will ever hold; LMDB locks another file.
  struct flock l {};
  l.l_type = F_WRLCK;
  l.l_whence = SEEK_SET;
  l.l_start = static_cast<off_t>((1ull << 40) + (std::hash<std::string>{}(owner.container_id + '\0' + owner.ifname) & 0xffffffffffull));
  l.l_len = 1;
  const auto until = std::chrono::steady_clock::now() + 10s;
  for (auto pause = 100us;; pause = std::min(pause * 2, std::chrono::microseconds(10ms))) {
    if (::fcntl(fd.get(), F_OFD_SETLK, &l) == 0) return fd;
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) return cni_fail(Code::io_failure, "lock {}: {}", path_, std::strerror(errno));
    if (std::chrono::steady_clock::now() > until)
      return cni_fail(Code::try_again_later, "container {} interface {} has been attached or detached by another process for 10 s", owner.container_id, owner.ifname);
    std::this_thread::sleep_for(pause);
  }
}

CniResult<> LeaseStore::transact(bool write, const std::function<CniResult<>(LeaseBook&)>& work) {
  MDB_txn* txn = nullptr;
  const auto failed = [](int rc, std::string_view what) { return cni_fail(from_error(lmdb_error(rc, what), Code::io_failure)); };
  if (const int rc = ::mdb_txn_begin(env_.get(), nullptr, write ? 0 : MDB_RDONLY, &txn); rc != 0) return failed(rc, "begin on lease store " + path_);
  auto abort = on_exit([&] { ::mdb_txn_abort(txn); });
  MDB_dbi dbi = 0;
  if (const int rc = ::mdb_dbi_open(txn, nullptr, 0, &dbi); rc != 0) return failed(rc, "open lease store " + path_);
  Book book(txn, dbi);
  CNI_CHECK(work(book));
  if (!write) return {};
  abort.dismiss();
  if (const int rc = ::mdb_txn_commit(txn); rc != 0) return failed(rc, "commit to lease store " + path_);
  return {};
}

CniResult<std::vector<Lease>> LeaseStore::all() {
  std::vector<Lease> out;
  CNI_CHECK(transact(false, [&](LeaseBook& b) -> CniResult<> {
    auto list = lift(b.all(), Code::io_failure);
    if (!list) return cni_fail(list.error());
    out = std::move(*list);
    return {};
  }));
  return out;
}

}  // namespace fairlead::cni
