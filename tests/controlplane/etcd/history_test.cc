// Random histories: the store and a toy model get the same requests and must give the same answers, across flushes,
// compactions and restarts. A difference prints the seed and the shortest list of requests that still shows it.
// FAIRLEAD_SEED and FAIRLEAD_HISTORIES choose other ones.
#include <cstdlib>
#include <sstream>

#include "base/random.h"
#include "controlplane/etcd/check.h"
#include "controlplane/etcd/store.h"
#include "tests/controlplane/etcd/model.h"
#include "tests/controlplane/etcd/testing.h"

namespace fairlead::etcd {
namespace {

// Every step carries its own chance, so steps can be left out without changing the others.
struct Step {
  std::uint64_t seed;
};

std::string show(const KeyValue& kv) {
  return fmt::format("{{{} c{} m{} v{} l{} '{}'}}", kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.lease, kv.value);
}
std::string show(const RangeResponse& r) {
  std::string s = fmt::format("rev {} count {} more {} [", r.revision, r.count, r.more);
  for (const auto& kv : r.kvs) s += show(kv);
  return s + "]";
}
std::string show(const PutResponse& r) { return fmt::format("rev {} prev {}", r.revision, r.prev_kv ? show(*r.prev_kv) : "-"); }
std::string show(const DeleteRangeResponse& r) {
  std::string s = fmt::format("rev {} deleted {} [", r.revision, r.deleted);
  for (const auto& kv : r.prev_kvs) s += show(kv);
  return s + "]";
}
std::string show(const TxnResponse& r) {
  std::string s = fmt::format("rev {} {} (", r.revision, r.succeeded);
  for (const auto& op : r.responses) {
    if (const auto* t = std::get_if<std::shared_ptr<TxnResponse>>(&op)) s += show(**t);
    else if (const auto* g = std::get_if<RangeResponse>(&op)) s += show(*g);
    else if (const auto* p = std::get_if<PutResponse>(&op)) s += show(*p);
    else s += show(std::get<DeleteRangeResponse>(op));
    s += "; ";
  }
  return s + ")";
}
std::string show(Revision r) { return std::to_string(r); }
std::string show(const Event& e) {
  return fmt::format("{} {} prev {}", e.type == Event::Type::put ? "put" : "del", show(e.kv), e.prev_kv ? show(*e.prev_kv) : "-");
}
template <typename T>
std::string show(const Result<T>& r) {
  return r ? show(*r) : "error: " + r.error().message;
}

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : r_(seed) {}
  std::uint64_t below(std::uint64_t n) { return r_.below(n); }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  std::string key() { return std::string(1 + below(2), static_cast<char>('a' + below(4))) + (one_in(30) ? std::string(600, 'z') : ""); }
  std::string range_end(const std::string& k) {
    switch (below(5)) {
      case 0: return {};
      case 1: return std::string(1, '\0');
      case 2: return prefix_end(k);
      default: return key();
    }
  }
  Revision revision(Revision now) {
    if (one_in(3)) return 0;
    return std::max<Revision>(0, now + 2 - static_cast<Revision>(below(20)));
  }
  RangeRequest range(Revision now) {
    RangeRequest r;
    r.key = one_in(8) ? std::string(1, '\0') : key();
    r.range_end = range_end(r.key);
    r.limit = one_in(2) ? 0 : static_cast<std::int64_t>(below(5));
    r.revision = revision(now);
    r.keys_only = one_in(5);
    r.count_only = one_in(6);
    if (one_in(3)) {
      r.order = static_cast<RangeRequest::Order>(below(3));
      r.target = static_cast<RangeRequest::Target>(below(5));
    }
    if (one_in(5)) r.min_mod_revision = revision(now);
    if (one_in(5)) r.max_mod_revision = revision(now);
    if (one_in(5)) r.min_create_revision = revision(now);
    if (one_in(5)) r.max_create_revision = revision(now);
    return r;
  }
  LeaseId lease() { return one_in(3) ? static_cast<LeaseId>(1 + below(4)) : 0; }
  PutRequest put() {
    PutRequest p;
    p.key = key();
    p.ignore_value = one_in(8);
    p.ignore_lease = one_in(8);
    if (!p.ignore_value) p.value = std::to_string(below(1000)) + (one_in(20) ? std::string(5000, 'x') : "");
    if (!p.ignore_lease) p.lease = lease();
    p.prev_kv = one_in(2);
    return p;
  }
  DeleteRangeRequest remove() {
    DeleteRangeRequest d;
    d.key = key();
    d.range_end = one_in(2) ? "" : range_end(d.key);
    d.prev_kv = one_in(2);
    return d;
  }
  TxnRequest txn(Revision now, int depth = 0) {
    TxnRequest t;
    for (auto n = below(3); n > 0; --n) {
      Compare c;
      c.result = static_cast<Compare::Result>(below(4));
      c.target = static_cast<Compare::Target>(below(5));
      c.key = key();
      if (one_in(4)) c.range_end = range_end(c.key);
      c.number = c.target == Compare::Target::version || c.target == Compare::Target::lease ? static_cast<std::int64_t>(below(4)) : revision(now);
      c.value = std::to_string(below(1000));
      t.compare.push_back(c);
    }
    for (auto* list : {&t.success, &t.failure})
      for (auto n = below(4); n > 0; --n) switch (below(depth < 2 ? 4 : 3)) {
          case 0: list->emplace_back(put()); break;
          case 1: list->emplace_back(remove()); break;
          case 2: list->emplace_back(range(now)); break;
          default: list->emplace_back(std::make_shared<TxnRequest>(txn(now, depth + 1)));
        }
    return t;
  }

 private:
  SeededRandom r_;
};

// One history on one fresh store. Empty: everything agreed.
class History {
 public:
  explicit History(std::uint64_t seed) {
    options_.flush_interval = std::chrono::milliseconds(seed % 3 == 0 ? 1 : 60'000);
    options_.flush_bytes = seed % 3 == 1 ? 1 : 16u << 20;
    options_.keep_recent_bytes = seed % 2 ? 0 : 8u << 20;
    options_.compaction_pause = std::chrono::milliseconds(0);
    options_.wal.segment_bytes = 64u << 10;
    options_.wal.sync = [](int) { return Result<>{}; };  // crashes are another test's subject
    options_.clock = &clock_;  // stands still: no lease runs out by itself
    open();
  }

  std::string step(Step s) {
    Generator g(s.seed);
    const auto now = model_.revision();
    switch (g.below(20)) {
      case 0: case 1: case 2: case 3: case 4: case 5: return same("put", [&] { return g.put(); },
          [&](auto r) { return await(store_->put(r)); }, [&](auto r) { return model_.put(r); });
      case 6: case 7: return same("delete", [&] { return g.remove(); }, [&](auto r) { return await(store_->delete_range(r)); },
                                  [&](auto r) { return model_.remove(r); });
      case 8: case 9: case 10: return same("range", [&] { return g.range(now); }, [&](auto r) { return await(store_->range(r)); },
                                           [&](auto r) { return model_.range(r); });
      case 11: case 12: case 13: {
        auto t = g.txn(now);
        if (!check(t, {})) return {};  // malformed: the conformance suite's subject
        return same("txn", [&] { return t; }, [&](auto r) { return await(store_->txn(r)); }, [&](auto r) { return model_.txn(r); });
      }
      case 14: {
        if (!g.one_in(3)) return {};
        const Revision at = now - static_cast<Revision>(g.below(10));
        const bool physical = g.one_in(2);
        if (at <= 0) return {};
        return same("compact", [&] { return at; }, [&](auto r) { return await(store_->compact(r, physical)); },
                    [&](auto r) { return model_.compact(r); });
      }
      case 15: {
        const auto id = static_cast<LeaseId>(1 + g.below(4));
        if (await(store_->lease_grant(100, id))) model_.grant(id);
        return {};
      }
      case 16: return same("revoke", [&] { return static_cast<LeaseId>(1 + g.below(4)); }, [&](auto r) { return await(store_->lease_revoke(r)); },
                           [&](auto r) { return model_.revoke(r); });
      case 17: return check_watch(g);
      case 18: if (g.one_in(2)) (void)store_->flush(); return {};
      default: return g.one_in(4) ? restart() : start_live(g);
    }
  }

  std::string finish() {
    for (auto& l : live_)
      if (auto d = drain(l); !d.empty()) return d;
    for (Revision r = std::max<Revision>(model_.compacted(), 1); r <= model_.revision(); ++r) {
      const RangeRequest all{.key = std::string(1, '\0'), .range_end = std::string(1, '\0'), .revision = r};
      const auto got = show(store_->range_now(all)), want = show(model_.range(all));
      if (got != want) return fmt::format("at the end, everything at {}: got {}, want {}", r, got, want);
    }
    return restart();
  }

 private:
  struct Live {
    WatchRequest request;
    Revision from;
    std::unique_ptr<WatchStream> stream;
    std::vector<Event> got;
  };

  void open() {
    auto s = Store::open(dir_.path(), options_);
    if (!s) throw std::runtime_error("open: " + s.error().message);
    store_ = std::move(*s);
  }
  template <typename Make, typename A, typename B>
  std::string same(const char* what, Make make, A real, B model) {
    const auto request = make();
    const auto want = show(model(request)), got = show(real(request));
    if (got == want) return {};
    return fmt::format("{}: got {}, want {}", what, got, want);
  }
  std::string restart() {
    for (auto& l : live_)
      if (auto d = drain(l); !d.empty()) return d;
    live_.clear();
    store_.reset();
    open();
    if (store_->revision() != model_.revision()) return fmt::format("after a restart: revision {}, want {}", store_->revision(), model_.revision());
    return {};
  }
  WatchRequest watch_request(Generator& g) {
    WatchRequest w;
    w.key = g.key();
    w.range_end = g.range_end(w.key);
    if (!w.range_end.empty() && w.range_end != std::string(1, '\0') && w.key >= w.range_end) w.range_end = prefix_end(w.key);
    w.prev_kv = g.one_in(2);
    w.filter_put = g.one_in(6);
    w.filter_delete = g.one_in(6);
    return w;
  }
  // Reads up to now and compares; a progress note says that everything came.
  std::string drain(Live& l) {
    const auto all = model_.events(l.request, l.from, 0);
    l.stream->request_progress();
    for (;;) {
      auto batch = await_for(l.stream->next(), std::chrono::seconds(10));
      if (!batch) return "watch: nothing came";
      if (!*batch) return "watch: " + batch->error().message;
      if ((*batch)->events.empty()) {
        if ((*batch)->revision > model_.revision()) return fmt::format("watch: progress at {} of {}", (*batch)->revision, model_.revision());
        if ((*batch)->revision == model_.revision()) break;
        l.stream->request_progress();
        continue;
      }
      l.got.insert(l.got.end(), (*batch)->events.begin(), (*batch)->events.end());
    }
    return compare_events(l.got, all, true);
  }
  // `loose`: a previous value that was compacted meanwhile may be missing.
  static std::string compare_events(const std::vector<Event>& got, const std::vector<Event>& want, bool loose) {
    for (std::size_t i = 0; i < std::max(got.size(), want.size()); ++i) {
      if (i >= got.size()) return "watch: missing " + show(want[i]);
      if (i >= want.size()) return "watch: unexpected " + show(got[i]);
      auto w = want[i];
      if (loose && !got[i].prev_kv) w.prev_kv.reset();
      if (show(got[i]) != show(w)) return fmt::format("watch: got {}, want {}", show(got[i]), show(w));
    }
    return {};
  }
  std::string check_watch(Generator& g) {
    Live l{watch_request(g), 0, nullptr, {}};
    l.from = std::max<Revision>(1, model_.revision() - static_cast<Revision>(g.below(25)));
    if (g.one_in(3) && model_.compacted() > 0) {
      if (g.one_in(2) && !store_->flush()) return "flush failed";
      l.from = model_.compacted();
    }
    l.request.start_revision = l.from;
    l.stream = await(store_->watch(l.request)).value();
    if (l.from < model_.compacted()) {
      auto batch = await_for(l.stream->next(), std::chrono::seconds(10));
      if (!batch || *batch || batch->error().code != ErrorCode::expired) return "watch below the compaction was not refused";
      return {};
    }
    return drain(l);
  }
  std::string start_live(Generator& g) {
    if (live_.size() >= 4) {
      auto d = drain(live_[g.below(4)]);
      if (!d.empty()) return d;
      return {};
    }
    Live l{watch_request(g), model_.revision() + 1, nullptr, {}};
    l.stream = await(store_->watch(l.request)).value();
    live_.push_back(std::move(l));
    return {};
  }

  TempDir dir_;
  ManualClock clock_;
  StoreOptions options_;
  Model model_;
  std::unique_ptr<Store> store_;
  std::vector<Live> live_;
};

std::string run(std::uint64_t seed, const std::vector<Step>& steps, std::size_t* failed_at = nullptr) {
  History h(seed);
  for (std::size_t i = 0; i < steps.size(); ++i)
    if (auto d = h.step(steps[i]); !d.empty()) {
      if (failed_at) *failed_at = i;
      return d;
    }
  if (failed_at) *failed_at = steps.empty() ? 0 : steps.size() - 1;
  return h.finish();
}

// The prefix that fails, then without every step that is not needed.
std::string shortest(std::uint64_t seed, std::vector<Step> steps, std::size_t failed_at, std::string difference) {
  steps.resize(failed_at + 1);
  const auto prefix = steps.size();
  for (std::size_t chunk = std::max<std::size_t>(1, steps.size() / 2); chunk > 0; chunk /= 2)
    for (std::size_t i = 0; i + chunk <= steps.size();) {
      auto fewer = steps;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i), fewer.begin() + static_cast<std::ptrdiff_t>(i + chunk));
      if (auto d = run(seed, fewer); !d.empty()) {
        steps = std::move(fewer);
        difference = d;
      } else {
        i += chunk;
      }
    }
  std::ostringstream out;
  out << "seed " << seed << ": first " << prefix << " steps fail; these " << steps.size() << " are enough:";
  for (const auto& s : steps) out << " " << s.seed << "u,";
  return out.str() + "\n" + difference;
}

TEST(History, RandomHistoriesAgreeWithTheModel) {
  const char* first = std::getenv("FAIRLEAD_SEED");
  const char* many = std::getenv("FAIRLEAD_HISTORIES");
  const std::uint64_t start = first ? std::strtoull(first, nullptr, 10) : 1;
  const std::uint64_t count = many ? std::strtoull(many, nullptr, 10) : 60;
  for (std::uint64_t seed = start; seed < start + count; ++seed) {
    SeededRandom r(seed);
    std::vector<Step> steps(200);
    for (auto& s : steps) s.seed = r.next();
    std::size_t failed_at = 0;
    const auto difference = run(seed, steps, &failed_at);
    ASSERT_EQ(difference, "") << shortest(seed, steps, failed_at, difference);
  }
}

}  // namespace
}  // namespace fairlead::etcd
