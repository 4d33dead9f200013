#include "lb/pool_source.h"

#include <array>

#include "base/log.h"
#include "kube/codec.h"
#include "kube/custom.h"
#include "kube/events.h"
#include "kube/informer.h"

namespace fairlead::lb {
namespace {

constexpr const char* kFromApi = "API";  // where a file's name would stand
constexpr const char* kGroup = "metallb.io";

const std::vector<std::shared_ptr<const kube::Kind>>& metallb_kinds() {
  static const auto* all = new std::vector<std::shared_ptr<const kube::Kind>>{
      kube::make_custom_kind({kGroup, "v1beta1", "IPAddressPool", "ipaddresspools", "ipaddresspool"}),
      kube::make_custom_kind({kGroup, "v1beta1", "L2Advertisement", "l2advertisements", "l2advertisement"}),
      kube::make_custom_kind({kGroup, "v1beta2", "BGPPeer", "bgppeers", "bgppeer"}),
      kube::make_custom_kind({kGroup, "v1beta1", "BGPAdvertisement", "bgpadvertisements", "bgpadvertisement"}),
      kube::make_custom_kind({kGroup, "v1beta1", "Community", "communities", "community"}),
      kube::make_custom_kind({kGroup, "v1beta1", "BFDProfile", "bfdprofiles", "bfdprofile"}),
  };
  return *all;
}

PoolText text_of(const kube::Kind& kind, const kube::CustomObject& object) {
  // JSON is YAML.
  return {kFromApi, kube::to_json(kube::to_json_object(object, kind.api_version(), kind.kind))};
}

class FolderSource final : public PoolSource {
 public:
  explicit FolderSource(std::string dir) : dir_(std::move(dir)) {}
  Result<std::optional<std::vector<PoolText>>> read() override {
    FL_TRY(auto texts, read_pool_dir(dir_));
    return std::optional(std::move(texts));
  }

 private:
  std::string dir_;
};

class ApiSource final : public PoolSource {
 public:
  ApiSource(std::shared_ptr<kube::Client> client, const std::string& ns) {
    for (const auto& kind : metallb_kinds()) {
      auto core = kube::make_informer_core(client, *kind, {.ns = ns});
      core->on_change([this](const auto&) { changed_ = true; });
      informers_.push_back({kind, std::move(core)});
    }
  }
  void start() override {
    for (auto& i : informers_) i.core->start();
  }
  Task<> stop() override {
    for (auto& i : informers_) co_await i.core->stop();
  }

  Result<std::optional<std::vector<PoolText>>> read() override {
    std::size_t known = 0;
    for (const auto& i : informers_) {
      // Pools must have been listed. A kind that cannot be listed at all may come later; until then it has no objects.
      const bool first = &i == &informers_.front();
      if (!i.core->has_synced() && (first || i.core->last_error().empty())) return std::optional<std::vector<PoolText>>();
      known += i.core->has_synced() ? 1 : 0;
    }
    if (std::exchange(changed_, false) || known != known_) {
      known_ = known;
      texts_.clear();
      references_.clear();
      for (const auto& i : informers_)
        for (const auto& [key, object] : i.core->all()) add(*i.kind, static_cast<const kube::CustomObject&>(*object));
    }
    return std::optional(texts_);
  }

  std::optional<corev1::ObjectReference> reference(const std::string& label) const override {
    const auto it = references_.find(label);
    return it == references_.end() ? std::nullopt : std::optional(it->second);
  }

 private:
  struct Followed {
    std::shared_ptr<const kube::Kind> kind;
    std::shared_ptr<kube::InformerCore> core;
  };
  void add(const kube::Kind& kind, const kube::CustomObject& object) {
    texts_.push_back(text_of(kind, object));
    references_[object_label(kind.kind, object.metadata().name(), kFromApi)] = kube::reference_to(kind, object.metadata());
  }

  std::vector<Followed> informers_;
  std::vector<PoolText> texts_;
  std::map<std::string, corev1::ObjectReference> references_;
  std::size_t known_ = 0;
  bool changed_ = true;
};

}  // namespace

Result<> PoolLocation::check() const {
  if (dir.empty() == ns.empty()) return fail(ErrorCode::invalid_argument, "one of --pools (a folder) and --pools-namespace (custom resources) is needed");
  return {};
}

std::unique_ptr<PoolSource> make_pool_source(std::shared_ptr<kube::Client> client, const PoolLocation& location) {
  if (!location.dir.empty()) return std::make_unique<FolderSource>(location.dir);
  return std::make_unique<ApiSource>(std::move(client), location.ns);
}

Task<Result<std::vector<PoolText>>> read_pools_once(std::shared_ptr<kube::Client> client, PoolLocation location) {
  if (!location.dir.empty()) co_return read_pool_dir(location.dir);
  std::vector<PoolText> out;
  const kube::ListOptions all;
  for (const auto& kind : metallb_kinds()) {
    auto list = co_await client->list_of(*kind, location.ns, all);
    if (!list && list.error().code == ErrorCode::not_found) continue;
    if (!list) co_return fail(std::move(list).error().with("list {}", kind->resource));
    for (const auto& o : list->items) out.push_back(text_of(*kind, static_cast<const kube::CustomObject&>(*o)));
  }
  co_return out;
}

}  // namespace fairlead::lb
