// ConfigMap, Secret, ServiceAccount, Lease.
#include <boost/json/parse.hpp>

#include "controlplane/apiserver/registry/strategies/all.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

constexpr std::size_t kMaxBytes = 1 << 20;
constexpr std::string_view kImmutableSet = "field is immutable when `immutable` is set";

template <typename Map>
std::size_t check_keys(const Map& data, const Path& path, ErrorList& out) {
  std::size_t total = 0;
  std::vector<std::string> keys;
  for (const auto& [k, v] : data) {
    keys.push_back(k);
    total += v.size();
  }
  std::sort(keys.begin(), keys.end());
  for (const auto& k : keys)
    for (const auto& c : check_config_key(k)) out.invalid(path.key(k), k, c);
  return total;
}

class ConfigMapStrategy final : public TypedStrategy<corev1::ConfigMap> {
 protected:
  void check(const corev1::ConfigMap& c, ErrorList& e) const override {
    auto total = check_keys(c.data(), Path("data"), e);
    total += check_keys(c.binarydata(), Path("binaryData"), e);
    for (const auto& [k, v] : c.binarydata())
      if (c.data().contains(k)) e.invalid(Path("data").key(k), k, "duplicate of key present in binaryData");
    if (total > kMaxBytes) e.too_long(Path(""), kMaxBytes);
  }
  void check_update(const corev1::ConfigMap& now, const corev1::ConfigMap& before, ErrorList& e) const override {
    if (before.immutable()) {
      if (!now.immutable()) e.forbidden(Path("immutable"), kImmutableSet);
      if (!field_equal(now, before, "data")) e.forbidden(Path("data"), kImmutableSet);
      if (!field_equal(now, before, "binaryData")) e.forbidden(Path("binaryData"), kImmutableSet);
    }
    check(now, e);
  }
};

constexpr std::string_view kSecretFields[] = {"type"};

class SecretStrategy final : public TypedStrategy<corev1::Secret> {
 public:
  std::span<const std::string_view> selectable_fields() const override { return kSecretFields; }

 protected:
  void defaults(corev1::Secret& s) const override {
    if (s.type().empty()) s.set_type("Opaque");
    for (const auto& [k, v] : s.stringdata()) (*s.mutable_data())[k] = v;  // write-only convenience
    s.clear_stringdata();
  }
  void check(const corev1::Secret& s, ErrorList& e) const override {
    const Path data("data");
    if (check_keys(s.data(), data, e) > kMaxBytes) e.too_long(data, kMaxBytes);
    const auto need = [&](const char* key) {
      if (!s.data().contains(key)) e.required(data.key(key));
    };
    if (s.type() == "kubernetes.io/tls") {
      need("tls.crt");
      need("tls.key");
    } else if (s.type() == "kubernetes.io/ssh-auth") {
      const auto it = s.data().find("ssh-privatekey");
      if (it == s.data().end() || it->second.empty()) e.required(data.key("ssh-privatekey"));
    } else if (s.type() == "kubernetes.io/basic-auth") {
      if (!s.data().contains("username") && !s.data().contains("password")) {
        e.required(data.key("username"));
        e.required(data.key("password"));
      }
    } else if (s.type() == "kubernetes.io/dockerconfigjson" || s.type() == "kubernetes.io/dockercfg") {
      const std::string key = s.type() == "kubernetes.io/dockercfg" ? ".dockercfg" : ".dockerconfigjson";
      const auto it = s.data().find(key);
      boost::system::error_code ec;
      if (it == s.data().end())
        e.required(data.key(key));
      else if (boost::json::parse(it->second, ec); ec)
        e.invalid(data.key(key), "<secret contents redacted>", ec.message());
    } else if (s.type() == "kubernetes.io/service-account-token") {
      const auto& a = s.metadata().annotations();
      const auto it = a.find("kubernetes.io/service-account.name");
      if (it == a.end() || it->second.empty()) e.required(Path("metadata").child("annotations").key("kubernetes.io/service-account.name"));
    }
  }
  void check_update(const corev1::Secret& now, const corev1::Secret& before, ErrorList& e) const override {
    if (now.type() != before.type()) e.invalid(Path("type"), now.type(), kImmutable);
    if (before.immutable()) {
      if (!now.immutable()) e.forbidden(Path("immutable"), kImmutableSet);
      if (!field_equal(now, before, "data")) e.forbidden(Path("data"), kImmutableSet);
    }
    check(now, e);
  }
  void values(const corev1::Secret& s, std::vector<std::string>& out) const override { out = {s.type()}; }
};

class ServiceAccountStrategy final : public TypedStrategy<corev1::ServiceAccount> {};

class LeaseStrategy final : public TypedStrategy<coordinationv1::Lease> {
 public:
  bool create_on_update() const override { return true; }
  bool unconditional_update() const override { return false; }

 protected:
  void check(const coordinationv1::Lease& l, ErrorList& e) const override {
    const Path spec("spec");
    const auto& s = l.spec();
    if (s.has_leasedurationseconds() && s.leasedurationseconds() <= 0)
      e.invalid(spec.child("leaseDurationSeconds"), s.leasedurationseconds(), "must be greater than 0");
    if (s.has_leasetransitions() && s.leasetransitions() < 0)
      e.invalid(spec.child("leaseTransitions"), s.leasetransitions(), "must be greater than or equal to 0");
    if (s.has_holderidentity() && s.holderidentity().empty() && s.has_strategy()) e.invalid(spec.child("holderIdentity"), "", "must not be empty");
  }
};

}  // namespace

std::unique_ptr<Strategy> config_map_strategy() { return std::make_unique<ConfigMapStrategy>(); }
std::unique_ptr<Strategy> secret_strategy() { return std::make_unique<SecretStrategy>(); }
std::unique_ptr<Strategy> service_account_strategy() { return std::make_unique<ServiceAccountStrategy>(); }
std::unique_ptr<Strategy> lease_strategy() { return std::make_unique<LeaseStrategy>(); }

}  // namespace fairlead::apiserver
