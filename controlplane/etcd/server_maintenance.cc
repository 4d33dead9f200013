// The services Maintenance and Cluster.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>

#include "base/fd.h"
#include "base/log.h"
#include "controlplane/etcd/server_core.h"
#include "controlplane/etcd/snapshot.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr std::size_t kBlob = 32u << 10;

// Sends a snapshot file piece by piece, its checksum last and alone, as etcd does. The file is made first and removed at once, so it
// goes away with this object whatever happens.
class SnapshotStream final : public grpc::ServerWriteReactor<pb::SnapshotResponse> {
 public:
  explicit SnapshotStream(ServerCore& core) : core_(core) {
    std::thread([this] { begin(); }).detach();  // it may take seconds; the call keeps this object alive
  }
  explicit SnapshotStream(ServerCore& core, const Error& refused) : core_(core) { Finish(to_status(refused)); }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    next();
  }
  void OnDone() override { delete this; }

 private:
  void begin() {
    static std::atomic<unsigned> counter{0};
    const auto path = fmt::format("{}/snapshot-{}-{}.tmp", core_.store.directory(), ::getpid(), ++counter);
    auto info = write_snapshot(core_.store, path);
    file_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    ::unlink(path.c_str());
    if (!info) return Finish(to_status(info.error()));
    if (!file_) return Finish(to_status(errno_error(errno, "open snapshot")));
    left_ = info->bytes;
    next();
  }
  void next() {
    reply_.Clear();
    core_.fill(reply_.mutable_header());
    reply_.set_version(kEmulatedVersion);
    if (summed_) return Finish(grpc::Status::OK);
    auto& blob = *reply_.mutable_blob();
    summed_ = left_ == 0;
    blob.resize(summed_ ? kSnapshotChecksumBytes : std::min<std::uint64_t>(kBlob, left_));
    const auto n = ::pread(file_.get(), blob.data(), blob.size(), static_cast<off_t>(at_));
    if (n <= 0) return Finish(to_status(errno_error(errno, "read snapshot")));
    blob.resize(static_cast<std::size_t>(n));
    at_ += blob.size();
    if (!summed_) left_ -= blob.size();
    reply_.set_remaining_bytes(left_);
    StartWrite(&reply_);
  }

  ServerCore& core_;
  Fd file_;
  std::uint64_t at_ = 0, left_ = 0;
  bool summed_ = false;
  pb::SnapshotResponse reply_;
};

class MaintenanceService final : public pb::Maintenance::CallbackService {
 public:
  explicit MaintenanceService(ServerCore& core) : core_(core) {}

  ServerUnaryReactor* Alarm(CallbackServerContext* context, const pb::AlarmRequest* m, pb::AlarmResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    if (m->action() == pb::AlarmRequest::GET) {
      list(reply, m->alarm());
      finish(core_, reactor, reply, {});
      return reactor;
    }
    const bool on = m->action() == pb::AlarmRequest::ACTIVATE;
    std::vector<SettingEntry> entries;
    for (const auto kind : {pb::NOSPACE, pb::CORRUPT}) {
      if (m->alarm() != kind && !(m->alarm() == pb::NONE && !on)) continue;
      const std::string name = kind == pb::NOSPACE ? kAlarmNoSpace : kAlarmCorrupt;
      if (core_.store.settings(name).empty() == !on) continue;
      entries.push_back({name, on ? std::optional<std::string>("") : std::nullopt});
      auto* alarm = reply->add_alarms();
      alarm->set_memberid(core_.member_id);
      alarm->set_alarm(kind);
    }
    if (entries.empty()) {
      finish(core_, reactor, reply, {});
      return reactor;
    }
    core_.store.set_settings(entries, [this, reactor, reply](Result<Revision> r) {
      core_.workers.post([this, reactor, reply, r = std::move(r)] { finish(core_, reactor, reply, r ? Result<>() : Result<>(fail(r.error()))); });
    });
    return reactor;
  }

  ServerUnaryReactor* Status(CallbackServerContext* context, const pb::StatusRequest*, pb::StatusResponse* reply) override {
    const auto s = core_.store.status();
    core_.fill(reply->mutable_header(), s.revision);
    reply->set_version(kEmulatedVersion);
    reply->set_storageversion("3.5.0");
    reply->set_dbsize(static_cast<std::int64_t>(s.file_bytes));
    reply->set_dbsizeinuse(static_cast<std::int64_t>(s.used_bytes));
    reply->set_dbsizequota(static_cast<std::int64_t>(s.quota_bytes));
    reply->set_leader(core_.member_id);
    reply->set_raftindex(s.sequence);
    reply->set_raftappliedindex(s.sequence);
    reply->set_raftterm(core_.term);
    if (s.no_space) reply->add_errors(fmt::format("memberID:{} alarm:NOSPACE ", core_.member_id));
    if (s.corrupt) reply->add_errors(fmt::format("memberID:{} alarm:CORRUPT ", core_.member_id));
    if (!s.failure.empty()) reply->add_errors(s.failure);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  // Freed pages are used again while the store runs, so there is nothing to stop the world for; what is in memory is
  // moved to the log table.
  ServerUnaryReactor* Defragment(CallbackServerContext* context, const pb::DefragmentRequest*, pb::DefragmentResponse* reply) override {
    return in_background(context, reply, [this] { return core_.store.flush(); });
  }

  ServerUnaryReactor* Hash(CallbackServerContext* context, const pb::HashRequest*, pb::HashResponse* reply) override {
    return in_background(context, reply, [this, reply]() -> Result<> {
      FL_TRY(const auto h, hash_kv(core_.store, 0));
      reply->set_hash(h.hash);
      return {};
    });
  }

  ServerUnaryReactor* HashKV(CallbackServerContext* context, const pb::HashKVRequest* m, pb::HashKVResponse* reply) override {
    return in_background(context, reply, [this, reply, revision = m->revision()]() -> Result<> {
      FL_TRY(const auto h, hash_kv(core_.store, revision));
      reply->set_hash(h.hash);
      reply->set_compact_revision(h.compacted == 0 ? -1 : h.compacted);
      reply->set_hash_revision(h.revision);
      return {};
    });
  }

  grpc::ServerWriteReactor<pb::SnapshotResponse>* Snapshot(CallbackServerContext* context, const pb::SnapshotRequest*) override {
    if (auto ok = core_.admin(context); !ok) return new SnapshotStream(core_, ok.error());
    return new SnapshotStream(core_);
  }

  ServerUnaryReactor* MoveLeader(CallbackServerContext* context, const pb::MoveLeaderRequest* m, pb::MoveLeaderResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    finish(core_, reactor, reply,
           m->targetid() == core_.member_id ? Result<>() : Result<>(fail(errors::make(ErrorCode::failed_precondition, "bad leader transferee"))));
    return reactor;
  }

  ServerUnaryReactor* Downgrade(CallbackServerContext* context, const pb::DowngradeRequest*, pb::DowngradeResponse* reply) override {
    auto* reactor = context->DefaultReactor();
    finish(core_, reactor, reply, fail(errors::make(ErrorCode::failed_precondition, "not capable")));
    return reactor;
  }

 private:
  void list(pb::AlarmResponse* reply, pb::AlarmType only) {
    for (const auto kind : {pb::NOSPACE, pb::CORRUPT}) {
      if (only != pb::NONE && only != kind) continue;
      if (core_.store.settings(kind == pb::NOSPACE ? kAlarmNoSpace : kAlarmCorrupt).empty()) continue;
      auto* alarm = reply->add_alarms();
      alarm->set_memberid(core_.member_id);
      alarm->set_alarm(kind);
    }
  }
  template <typename Reply, typename Job>
  ServerUnaryReactor* in_background(CallbackServerContext* context, Reply* reply, Job job) {
    auto* reactor = context->DefaultReactor();
    if (auto ok = core_.admin(context); !ok) {
      finish(core_, reactor, reply, ok);
      return reactor;
    }
    std::thread([this, reactor, reply, job] { finish(core_, reactor, reply, job()); }).detach();
    return reactor;
  }
  ServerCore& core_;
};

// One member: itself.
class ClusterService final : public pb::Cluster::CallbackService {
 public:
  explicit ClusterService(ServerCore& core) : core_(core) {}
  ServerUnaryReactor* MemberList(CallbackServerContext* context, const pb::MemberListRequest*, pb::MemberListResponse* reply) override {
    describe(reply->add_members());
    return done(context, reply, {});
  }
  ServerUnaryReactor* MemberAdd(CallbackServerContext* context, const pb::MemberAddRequest*, pb::MemberAddResponse* reply) override {
    return done(context, reply, single());
  }
  ServerUnaryReactor* MemberRemove(CallbackServerContext* context, const pb::MemberRemoveRequest* m, pb::MemberRemoveResponse* reply) override {
    return done(context, reply, m->id() == core_.member_id ? single() : unknown());
  }
  ServerUnaryReactor* MemberUpdate(CallbackServerContext* context, const pb::MemberUpdateRequest* m, pb::MemberUpdateResponse* reply) override {
    return done(context, reply, m->id() == core_.member_id ? single() : unknown());
  }
  ServerUnaryReactor* MemberPromote(CallbackServerContext* context, const pb::MemberPromoteRequest* m, pb::MemberPromoteResponse* reply) override {
    return done(context, reply,
                m->id() == core_.member_id ? Result<>(fail(errors::make(ErrorCode::failed_precondition, "can only promote a learner member"))) : unknown());
  }

 private:
  static Result<> unknown() { return fail(errors::make(ErrorCode::not_found, "member not found")); }
  static Result<> single() {
    return fail(ErrorCode::failed_precondition, "etcdserver: the embedded store has one member; use an etcd cluster for several");
  }
  void describe(pb::Member* m) const {
    m->set_id(core_.member_id);
    m->set_name(core_.options.name);
    for (const auto& url : core_.options.advertise_urls) m->add_clienturls(url);
  }
  template <typename Reply>
  ServerUnaryReactor* done(CallbackServerContext* context, Reply* reply, const Result<>& r) {
    auto* reactor = context->DefaultReactor();
    finish(core_, reactor, reply, r);
    return reactor;
  }
  ServerCore& core_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_maintenance_service(ServerCore& core) { return std::make_unique<MaintenanceService>(core); }
std::unique_ptr<grpc::Service> make_cluster_service(ServerCore& core) { return std::make_unique<ClusterService>(core); }

}  // namespace fairlead::etcd
