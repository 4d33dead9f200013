#include "tests/controlplane/kubelet/runtime_simulated.h"

#include <charconv>
#include <map>

#include "base/ip.h"
#include "controlplane/kubelet/proto/cri.pb.h"

namespace fairlead::kubelet {
namespace {

using std::chrono::milliseconds;

struct Container {
  ContainerRecord record;
  std::vector<std::string> args;
};

milliseconds parse_after(const std::string& text) {
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc()) return milliseconds(0);
  return milliseconds(static_cast<std::int64_t>(std::string_view(end) == "ms" ? value : value * 1000));
}

class Simulated final : public SimulatedRuntime, public std::enable_shared_from_this<Simulated> {
 public:
  Simulated(net::any_io_executor executor, const SimulationOptions& options)
      : executor_(std::move(executor)), options_(options), random_(options.random ? *options.random : SystemRandom::get()) {
    if (auto cidr = Prefix::parse(options.pod_cidr)) cidr_ = *cidr;
  }

  Task<Result<RuntimeVersion>> version() override { co_return RuntimeVersion{"simulated", "1.0"}; }
  Task<Result<RuntimeConditions>> conditions() override {
    if (!available_) co_return away();
    co_return RuntimeConditions{true, true, {}, {}};
  }
  Task<Result<>> set_pod_cidr(std::string pod_cidr) override {
    FL_CO_TRY(cidr_, Prefix::parse(pod_cidr));
    co_return Result<>{};
  }

  Task<Result<std::string>> run_sandbox(std::shared_ptr<const cri::PodSandboxConfig> config) override {
    FL_CO_CHECK(co_await work(options_.sandbox_time));
    SandboxRecord s;
    s.id = "sandbox-" + std::to_string(++next_id_);
    s.attempt = config->metadata().attempt();
    s.ready = true;
    s.created_at = options_.clock->wall();
    s.pod_uid = config->metadata().uid();
    s.pod_name = config->metadata().name();
    s.pod_namespace = config->metadata().namespace_();
    const std::uint64_t size = std::uint64_t{1} << (cidr_.address().bits() - cidr_.length());
    s.ips = {cidr_.first().plus(2 + next_ip_++ % (size - 3)).to_string()};
    sandboxes_[s.id] = s;
    co_return s.id;
  }
  Task<Result<>> stop_sandbox(std::string id) override {
    FL_CO_CHECK(co_await work(options_.stop_time));
    const auto it = sandboxes_.find(id);
    if (it == sandboxes_.end()) co_return unknown(id);
    it->second.ready = false;
    for (auto& [cid, c] : containers_)
      if (c.record.sandbox_id == id) finish(c, 137);
    co_return Result<>{};
  }
  Task<Result<>> remove_sandbox(std::string id) override {
    FL_CO_CHECK(co_await work(options_.stop_time));
    if (sandboxes_.erase(id) == 0) co_return unknown(id);
    std::erase_if(containers_, [&](const auto& c) { return c.second.record.sandbox_id == id; });
    co_return Result<>{};
  }
  Task<Result<SandboxRecord>> sandbox_status(std::string id) override {
    if (!available_) co_return away();
    const auto it = sandboxes_.find(id);
    if (it == sandboxes_.end()) co_return unknown(id);
    co_return it->second;
  }
  Task<Result<std::vector<SandboxRecord>>> list_sandboxes(std::string pod_uid) override {
    if (!available_) co_return away();
    std::vector<SandboxRecord> out;
    for (const auto& [id, s] : sandboxes_) {
      if (!pod_uid.empty() && s.pod_uid != pod_uid) continue;
      out.push_back(s);
      out.back().ips.clear();  // as in CRI: only the status has them
    }
    co_return out;
  }

  Task<Result<std::string>> create_container(std::string sandbox_id, std::shared_ptr<const cri::ContainerConfig> config,
                                             std::shared_ptr<const cri::PodSandboxConfig> sandbox_config) override {
    FL_CO_CHECK(co_await work(options_.container_time / 2));
    const auto sandbox = sandboxes_.find(sandbox_id);
    if (sandbox == sandboxes_.end() || !sandbox->second.ready) co_return fail(ErrorCode::failed_precondition, "sandbox {} is not ready", sandbox_id);
    for (const auto& [id, c] : containers_)
      if (c.record.sandbox_id == sandbox_id && c.record.name == config->metadata().name() && c.record.attempt == config->metadata().attempt())
        co_return fail(ErrorCode::internal, "the name {}_{} is reserved for {}", c.record.name, c.record.attempt, id);
    Container c;
    c.record.id = "container-" + std::to_string(++next_id_);
    c.record.sandbox_id = sandbox_id;
    c.record.name = config->metadata().name();
    c.record.attempt = config->metadata().attempt();
    c.record.phase = ContainerPhase::created;
    c.record.image = config->image().image();
    c.record.image_ref = config->image().image();
    c.record.created_at = options_.clock->wall();
    c.record.pod_uid = sandbox_config->metadata().uid();
    c.record.pod_name = sandbox_config->metadata().name();
    c.record.pod_namespace = sandbox_config->metadata().namespace_();
    c.args.assign(config->args().begin(), config->args().end());
    const std::string id = c.record.id;
    containers_[id] = std::move(c);
    co_return id;
  }
  Task<Result<>> start_container(std::string id) override {
    FL_CO_CHECK(co_await work(options_.container_time / 2));
    const auto it = containers_.find(id);
    if (it == containers_.end()) co_return unknown(id);
    Container& c = it->second;
    if (c.record.phase != ContainerPhase::created) co_return fail(ErrorCode::failed_precondition, "container {} was started before", id);
    c.record.phase = ContainerPhase::running;
    c.record.started_at = options_.clock->wall();
    ++starts_;
    if (c.args.size() >= 2 && c.args[0] == "exit") {
      milliseconds after(0);
      for (std::size_t i = 2; i + 1 < c.args.size(); ++i)
        if (c.args[i] == "--after") after = parse_after(c.args[i + 1]);
      int code = 0;
      std::from_chars(c.args[1].data(), c.args[1].data() + c.args[1].size(), code);
      net::co_spawn(executor_, end_later(shared_from_this(), id, code, after), net::detached);
    }
    co_return Result<>{};
  }
  Task<Result<>> stop_container(std::string id, std::chrono::seconds) override {
    FL_CO_CHECK(co_await work(options_.stop_time));
    const auto it = containers_.find(id);
    if (it == containers_.end()) co_return unknown(id);
    finish(it->second, 143);
    co_return Result<>{};
  }
  Task<Result<>> remove_container(std::string id) override {
    FL_CO_CHECK(co_await work(milliseconds(1)));
    if (containers_.erase(id) == 0) co_return unknown(id);
    co_return Result<>{};
  }
  Task<Result<ContainerRecord>> container_status(std::string id) override {
    if (!available_) co_return away();
    const auto it = containers_.find(id);
    if (it == containers_.end()) co_return unknown(id);
    co_return it->second.record;
  }
  Task<Result<std::vector<ContainerRecord>>> list_containers(std::string pod_uid) override {
    if (!available_) co_return away();
    std::vector<ContainerRecord> out;
    for (const auto& [id, c] : containers_)
      if (pod_uid.empty() || c.record.pod_uid == pod_uid) out.push_back(c.record);
    co_return out;
  }
  Task<Result<>> reopen_log(std::string) override { co_return Result<>{}; }
  Task<Result<ExecResult>> exec(std::string id, std::vector<std::string>, std::chrono::seconds) override {
    const auto it = containers_.find(id);
    if (it == containers_.end() || it->second.record.phase != ContainerPhase::running) co_return unknown(id);
    co_return ExecResult{};
  }

  Task<Result<ImageRecord>> image_status(std::string reference) override {
    if (!available_) co_return away();
    co_return ImageRecord{"sha256:" + reference, {reference}, 1 << 20, "65532"};
  }
  Task<Result<std::string>> pull_image(std::string reference) override { co_return "sha256:" + reference; }
  Task<Result<std::vector<ImageRecord>>> list_images() override { co_return std::vector<ImageRecord>{}; }
  void on_activity(std::function<void()> hint) override { hint_ = std::move(hint); }

  void end_container(const std::string& id, int exit_code) override {
    if (const auto it = containers_.find(id); it != containers_.end()) finish(it->second, exit_code);
  }
  void break_sandbox(const std::string& id) override {
    if (const auto it = sandboxes_.find(id); it != sandboxes_.end()) it->second.ready = false;
    if (hint_) hint_();
  }
  void set_available(bool available) override { available_ = available; }
  std::size_t running_containers() const override {
    std::size_t n = 0;
    for (const auto& [id, c] : containers_) n += c.record.phase == ContainerPhase::running;
    return n;
  }
  std::size_t sandboxes() const override { return sandboxes_.size(); }
  std::size_t starts() const override { return starts_; }

 private:
  static Failure away() { return fail(ErrorCode::unavailable, "the simulated runtime is away"); }
  static Failure unknown(const std::string& id) { return fail(ErrorCode::not_found, "{}: not found", id); }

  // A call that changes something: takes its time, may fail.
  Task<Result<>> work(milliseconds time) {
    auto self = shared_from_this();
    co_await sleep_for(time);
    if (!available_) co_return away();
    if (options_.failures_per_thousand > 0 && random_.below(1000) < options_.failures_per_thousand)
      co_return fail(ErrorCode::internal, "a simulated failure");
    co_return Result<>{};
  }
  void finish(Container& c, int exit_code) {
    if (c.record.phase != ContainerPhase::running && c.record.phase != ContainerPhase::created) return;
    c.record.phase = ContainerPhase::exited;
    c.record.exit_code = exit_code;
    c.record.reason = exit_code == 0 ? "Completed" : "Error";
    c.record.finished_at = options_.clock->wall();
    if (hint_) hint_();
  }
  static Task<> end_later(std::shared_ptr<Simulated> self, std::string id, int code, milliseconds after) {
    co_await sleep_for(after);
    self->end_container(id, code);
  }

  net::any_io_executor executor_;
  const SimulationOptions options_;
  Random& random_;
  Prefix cidr_;
  std::map<std::string, SandboxRecord> sandboxes_;
  std::map<std::string, Container> containers_;
  std::function<void()> hint_;
  std::uint64_t next_id_ = 0, next_ip_ = 0;
  std::size_t starts_ = 0;
  bool available_ = true;
};

}  // namespace

std::shared_ptr<SimulatedRuntime> make_simulated_runtime(net::any_io_executor executor, const SimulationOptions& options) {
  return std::make_shared<Simulated>(std::move(executor), options);
}

}  // namespace fairlead::kubelet
