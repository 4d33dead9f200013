// Crashes. A child process writes and tells through a pipe what was answered; it is killed at a random moment; the store
// is opened again and must hold everything that was answered, nothing half, and no gap. And power cuts: at random flushes
// the folder is copied as it would be with the unflushed bytes lost, torn or reordered, and the copy is opened.
// FAIRLEAD_CRASH_ROUNDS runs more of them, FAIRLEAD_CRASH_SECONDS ends each test after that time (a busy machine then does fewer
// rounds; how many there were is printed), FAIRLEAD_SEED starts elsewhere.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <thread>

#include "base/files.h"
#include "base/random.h"
#include "controlplane/etcd/store.h"
#include "tests/controlplane/etcd/testing.h"

namespace fairlead::etcd {
namespace {

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* v = std::getenv(name);
  return v ? std::strtoull(v, nullptr, 10) : otherwise;
}

// Whether there is time for another round. Some there must be.
class Rounds {
 public:
  bool more(std::uint64_t done) const { return done < kFewest || std::chrono::steady_clock::now() < end_; }

 private:
  static constexpr std::uint64_t kFewest = 12;
  const std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + std::chrono::seconds(setting("FAIRLEAD_CRASH_SECONDS", 1'000'000));
};

struct Answer {
  std::uint32_t worker;
  std::uint32_t count;   // what the worker wrote into both of its keys
  std::int64_t revision;
};

StoreOptions small_options(std::uint64_t seed) {
  StoreOptions o;
  o.wal.segment_bytes = 32u << 10;  // many changes of file
  o.flush_interval = std::chrono::milliseconds(1 + seed % 10);
  o.flush_bytes = 4096;
  o.keep_recent_bytes = 0;
  o.compaction_pause = std::chrono::milliseconds(0);
  return o;
}

// Two keys in one transaction, so that half a transaction shows; now and then the second key is deleted instead.
TxnRequest step(std::uint32_t worker, std::uint32_t count) {
  TxnRequest t;
  const auto name = "w" + std::to_string(worker);
  t.success.emplace_back(PutRequest{.key = name + "/a", .value = std::to_string(count)});
  if (count % 10 == 0) t.success.emplace_back(DeleteRangeRequest{.key = name + "/b"});
  else t.success.emplace_back(PutRequest{.key = name + "/b", .value = std::to_string(count) + std::string(count % 7 * 100, 'x')});
  return t;
}

constexpr std::uint32_t kWorkers = 8;

void tell(int pipe, std::uint32_t worker, std::uint32_t count, const Result<TxnResponse>& r) {
  if (!r) ::_exit(8);
  const Answer a{worker, count, r->revision};
  if (::write(pipe, &a, sizeof a) != sizeof a) ::_exit(9);
}

// As a server does: this thread hands in, and may have to write and flush itself.
[[noreturn]] void hand_in_forever(Store& store, std::uint32_t worker, std::uint32_t count, int pipe) {
  std::atomic<std::uint32_t> answered{0};
  for (;; ++count) {
    store.gather();
    store.txn(step(worker, count), [&](Result<TxnResponse> r) {
      tell(pipe, worker, count, r);
      answered = count;
      answered.notify_one();
    });
    store.hand_in();
    for (auto seen = answered.load(); seen != count; seen = answered.load()) answered.wait(seen);
  }
}

[[noreturn]] void child(const std::string& dir, std::uint64_t seed, int pipe) {
  auto opened = Store::open(dir, small_options(seed));
  if (!opened) {
    std::fprintf(stderr, "child: %s\n", opened.error().message.c_str());
    ::_exit(7);
  }
  auto& store = **opened;
  std::function<void(std::uint32_t, std::uint32_t)> next = [&](std::uint32_t worker, std::uint32_t count) {
    store.txn(step(worker, count), [&, worker, count](Result<TxnResponse> r) {
      tell(pipe, worker, count, r);
      if (count % 50 == 7) store.compact(r->revision - 20, false, [](Result<Revision>) {});
      next(worker, count + 1);
    });
  };
  for (std::uint32_t w = 0; w < kWorkers; ++w) {
    const auto have = store.range_now({.key = "w" + std::to_string(w) + "/a"});
    const auto first = have->kvs.empty() ? 1 : static_cast<std::uint32_t>(std::stoul(have->kvs[0].value)) + 1;
    // Some queue up for the writer thread, some hand in; how many changes from round to round.
    if (w % 3 < seed % 3) std::thread([&store, w, first, pipe] { hand_in_forever(store, w, first, pipe); }).detach();
    else next(w, first);
  }
  for (;;) ::pause();
}

// What must hold for any state that a crash may leave. `acknowledged`: worker -> greatest answered count.
void verify(Store& s, const std::map<std::uint32_t, Answer>& acknowledged, const std::string& where) {
  for (const auto& [worker, a] : acknowledged) {
    const auto name = "w" + std::to_string(worker);
    const auto r = s.range_now({.key = name + "/", .range_end = name + "0"});
    ASSERT_TRUE(r) << where << r.error().message;
    ASSERT_FALSE(r->kvs.empty()) << where << "worker " << worker << " lost everything";
    const auto count = std::stoul(r->kvs[0].value);
    ASSERT_GE(count, a.count) << where << "an acknowledged write of worker " << worker << " is gone";
    if (count % 10 == 0) ASSERT_EQ(r->kvs.size(), 1u) << where << "half a transaction";
    else {
      ASSERT_EQ(r->kvs.size(), 2u) << where << "half a transaction";
      ASSERT_EQ(std::stoul(r->kvs[1].value), count) << where << "half a transaction";
      ASSERT_EQ(r->kvs[1].mod_revision, r->kvs[0].mod_revision);
    }
    ASSERT_GE(s.revision(), a.revision) << where;
  }
  // Everything above the compaction is readable, checksums and all, without a gap.
  Revision expect = std::max<Revision>(s.compacted(), 1) + 1;
  auto scanned = s.scan(expect, s.revision(), [&](RevKey at, const RowView&) -> Result<bool> {
    EXPECT_TRUE(at.main == expect || at.main == expect - 1) << where << "revision " << expect << " is missing, found " << at.main;
    expect = at.main + 1;
    return true;
  });
  ASSERT_TRUE(scanned) << where << scanned.error().message;
  ASSERT_EQ(expect, s.revision() + 1) << where;
}

TEST(Crash, KilledAtRandomNothingAcknowledgedIsLost) {
  const auto rounds = setting("FAIRLEAD_CRASH_ROUNDS", 40), seed = setting("FAIRLEAD_SEED", 1);
  SeededRandom random(seed);
  TempDir dir;
  std::map<std::uint32_t, Answer> acknowledged;
  std::uint64_t answers = 0;
  // On a busy machine the child may be killed before it wrote anything: then there are more rounds.
  const Rounds time;
  std::uint64_t round = 0;
  for (; time.more(round) && (round < rounds || (answers <= rounds && round < 20 * rounds)); ++round) {
    int fds[2];
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    const auto pid = ::fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      ::close(fds[0]);
      child(dir.path(), seed + round, fds[1]);
    }
    ::close(fds[1]);
    const auto deadline = std::chrono::microseconds(500 + random.below(40'000));
    std::thread killer([&] {
      std::this_thread::sleep_for(deadline);
      ::kill(pid, SIGKILL);
    });
    Answer a;
    while (::read(fds[0], &a, sizeof a) == sizeof a) {
      acknowledged[a.worker] = a;
      ++answers;
    }
    ::close(fds[0]);
    killer.join();
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status)) << "round " << round << ": the child ended by itself with " << WEXITSTATUS(status);
    auto s = Store::open(dir.path(), small_options(seed));
    ASSERT_TRUE(s) << "round " << round << ", seed " << seed << ": " << s.error().message;
    verify(**s, acknowledged, fmt::format("round {}, seed {}: ", round, seed));
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(answers, std::min(rounds, round)) << "the test wrote too little to mean anything";
  std::printf("%llu kills, %llu answers\n", static_cast<unsigned long long>(round), static_cast<unsigned long long>(answers));
}

// A copy of the store's folder in which every byte written to the log after its last flush is lost, kept or damaged,
// sector by sector.
class PowerCut {
 public:
  PowerCut(std::string dir, std::uint64_t seed) : dir_(std::move(dir)), random_(seed) { remember(); }

  // Called in place of fdatasync: what is in the files now, beyond what was flushed, is at risk.
  void cut(const std::string& into) {
    std::filesystem::remove_all(into);
    std::filesystem::copy(dir_, into, std::filesystem::copy_options::recursive);
    for (const auto& e : std::filesystem::directory_iterator(into + "/wal")) {
      const auto name = e.path().filename().string();
      auto content = read_file(e.path().string(), 1u << 30).value();
      const auto known = flushed_.find(inode(dir_ + "/wal/" + name));
      if (known == flushed_.end()) continue;  // made with its own fsync
      const auto& before = known->second;
      for (std::size_t at = 0; at < content.size(); at += 512) {
        const auto n = std::min<std::size_t>(512, content.size() - at);
        if (at + n <= before.size() && std::memcmp(content.data() + at, before.data() + at, n) == 0) continue;
        const auto fate = random_.below(3);
        if (fate == 0) continue;                                                         // it reached the disk
        std::string old = at < before.size() ? before.substr(at, n) : std::string(n, '\0');
        old.resize(n, '\0');
        if (fate == 2) old.replace(0, n / 2, content.substr(at, n / 2));  // half of it did
        content.replace(at, n, old);
      }
      std::ofstream(e.path(), std::ios::binary | std::ios::trunc) << content;
    }
  }
  void remember() {
    flushed_.clear();
    for (const auto& e : std::filesystem::directory_iterator(dir_ + "/wal"))
      if (auto content = read_file(e.path().string(), 1u << 30)) flushed_[inode(e.path().string())] = std::move(*content);
  }

 private:
  static std::uint64_t inode(const std::string& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 ? st.st_ino : 0;
  }
  const std::string dir_;
  SeededRandom random_;
  std::map<std::uint64_t, std::string> flushed_;
};

TEST(Crash, PowerCutsLoseOnlyWhatWasNotFlushed) {
  const auto rounds = setting("FAIRLEAD_CRASH_ROUNDS", 12), seed = setting("FAIRLEAD_SEED", 1);
  const Rounds time;
  std::uint64_t round = 0;
  for (; round < rounds && time.more(round); ++round) {
    TempDir dir, copies;
    SeededRandom random(seed * 1000 + round);
    std::unique_ptr<PowerCut> power;
    std::map<std::uint32_t, Answer> acknowledged;  // written by the store's writer thread only, as is the hook
    struct Cut {
      std::string path;
      std::map<std::uint32_t, Answer> acknowledged;
    };
    std::vector<Cut> cuts;
    int syncs = 0;
    auto o = small_options(seed);
    o.flush_interval = std::chrono::hours(1);  // the log table stands still, so that a copy of it is one of its states
    o.flush_bytes = 1u << 30;
    o.wal.sync = [&](int) -> Result<> {
      if (power) {
        ++syncs;
        if (cuts.size() < 6 && (random.below(8) == 0 || (cuts.empty() && syncs == 30))) {
          cuts.push_back({copies.path() + "/" + std::to_string(cuts.size()), acknowledged});
          power->cut(cuts.back().path);
        }
        power->remember();
      }
      return {};
    };
    {
      auto store = Store::open(dir.path(), o).value();
      ASSERT_TRUE(store->flush());
      power = std::make_unique<PowerCut>(dir.path(), seed + round);
      std::atomic<int> running{0};
      std::function<void(std::uint32_t, std::uint32_t)> next = [&](std::uint32_t worker, std::uint32_t count) {
        store->txn(step(worker, count), [&, worker, count](Result<TxnResponse> r) {
          if (r) acknowledged[worker] = {worker, count, r->revision};
          if (r && count < 60) next(worker, count + 1);
          else --running;
        });
      };
      running = kWorkers;
      for (std::uint32_t w = 0; w < kWorkers; ++w) next(w, 1);
      while (running > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_FALSE(cuts.empty());
    for (auto& cut : cuts) {
      for (int again = 0; again < 2; ++again) {
        auto s = Store::open(cut.path, small_options(seed));
        ASSERT_TRUE(s) << "round " << round << ", seed " << seed << ", " << cut.path << ": " << s.error().message;
        verify(**s, cut.acknowledged, fmt::format("round {}, seed {}: ", round, seed));
        if (HasFatalFailure()) return;
        // The store goes on from there, and what it answers then must hold as well.
        for (std::uint32_t w = 0; w < kWorkers; ++w) {
          const auto have = (*s)->range_now({.key = "w" + std::to_string(w) + "/a"});
          const auto count = have->kvs.empty() ? 1 : static_cast<std::uint32_t>(std::stoul(have->kvs[0].value)) + 1;
          auto r = await((*s)->txn(step(w, count)));
          ASSERT_TRUE(r) << r.error().message;
          cut.acknowledged[w] = {w, count, r->revision};
        }
      }
    }
  }
  std::printf("%llu rounds of up to six power cuts\n", static_cast<unsigned long long>(round));
}

// Damage to what was acknowledged must be named, not repaired in silence.
TEST(Crash, DamageToAcknowledgedRecordsIsNamed) {
  TempDir dir;
  auto o = small_options(1);
  o.flush_interval = std::chrono::hours(1);
  o.flush_bytes = 1u << 30;
  const TempDir copy;
  {
    auto s = Store::open(dir.path(), o).value();
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(await(s->put({.key = "damage-me", .value = "value-" + std::to_string(i)})));
    std::filesystem::copy(dir.path(), copy.path(), std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
  }
  for (const auto& e : std::filesystem::directory_iterator(copy.path() + "/wal")) {
    auto content = read_file(e.path().string()).value();
    const auto at = content.find("value-7");
    if (at == std::string::npos) continue;
    content[at] ^= 1;
    std::ofstream(e.path(), std::ios::binary | std::ios::trunc) << content;
  }
  auto s = Store::open(copy.path(), o);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, ErrorCode::data_loss);
  EXPECT_NE(s.error().message.find("damaged, and later ones are whole"), std::string::npos) << s.error().message;
}

TEST(Crash, AMissingSegmentIsNamed) {
  TempDir dir;
  auto o = small_options(1);
  o.flush_interval = std::chrono::hours(1);
  o.flush_bytes = 1u << 30;
  const TempDir copy;
  {
    auto s = Store::open(dir.path(), o).value();
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(await(s->put({.key = "k", .value = std::string(4000, 'v')})));
    std::filesystem::copy(dir.path(), copy.path(), std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
  }
  std::vector<std::string> segments;
  for (const auto& e : std::filesystem::directory_iterator(copy.path() + "/wal"))
    if (e.path().extension() == ".wal") segments.push_back(e.path());
  std::sort(segments.begin(), segments.end());
  ASSERT_GT(segments.size(), 3u);
  std::filesystem::remove(segments[1]);
  auto s = Store::open(copy.path(), o);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, ErrorCode::data_loss);
}

TEST(Crash, ADamagedRowOfTheLogTableIsNamed) {
  TempDir dir;
  {
    auto s = Store::open(dir.path(), small_options(1)).value();
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(await(s->put({.key = "k" + std::to_string(i), .value = "find-me-" + std::to_string(i)})));
    ASSERT_TRUE(s->flush());
  }
  auto content = read_file(dir.path() + "/log.mdb", 1u << 30).value();
  for (auto at = content.find("find-me-7"); at != std::string::npos; at = content.find("find-me-7", at + 1)) content[at] = 'X';
  std::ofstream(dir.path() + "/log.mdb", std::ios::binary | std::ios::trunc) << content;
  auto s = Store::open(dir.path(), small_options(1));
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, ErrorCode::data_loss);
  EXPECT_NE(s.error().message.find("fails its checksum"), std::string::npos) << s.error().message;
}

}  // namespace
}  // namespace fairlead::etcd
