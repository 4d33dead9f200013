// Strategy: what one kind does differently from all others on its way into the store. The generic registry does the
// common work once (names, uid, timestamps, finalizers, preconditions, storage, watch) and asks the strategy for the rest.
// Every function is pure: it may read the objects and the context, never the store, the clock or the network.
//
// Order of a create:  apply_defaults -> prepare_for_create -> validate -> (allocation) -> canonicalise -> stored
// Order of an update: apply_defaults -> prepare_for_update -> validate_update -> (allocation) -> canonicalise -> stored
// A status update runs prepare_for_status_update and validate_status_update instead.
// Source of the rules: kubernetes pkg/registry/<group>/<kind>/strategy.go and pkg/apis/*/validation.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/apiserver/object.h"
#include "controlplane/apiserver/validation/field.h"
#include "controlplane/apiserver/validation/meta.h"

namespace fairlead::apiserver {

using Warnings = std::vector<std::string>;

class Strategy {
 public:
  virtual ~Strategy() = default;

  // Removes what the kind does not know, from what a client sent; `strict`, where given, is told: `unknown field "x"`. Only for
  // kinds without a schema in kube/proto: the codec does it for the others.
  virtual void prune(Message&, Warnings* /*strict*/) const {}
  virtual void apply_defaults(Message&) const {}
  virtual void prepare_for_create(Message&) const {}
  virtual void prepare_for_update(Message& /*now*/, const Message& /*before*/) const {}
  virtual void prepare_for_status_update(Message& /*now*/, const Message& /*before*/) const {}
  virtual void validate(const Message&, field::ErrorList&) const {}
  virtual void validate_update(const Message& /*now*/, const Message& /*before*/, field::ErrorList&) const {}
  virtual void validate_status_update(const Message& /*now*/, const Message& /*before*/, field::ErrorList&) const {}
  virtual void canonicalise(Message&) const {}
  virtual Warnings warnings(const Message&) const { return {}; }

  virtual NameCheck name_check() const { return check_dns1123_subdomain; }
  virtual bool tracks_generation() const { return false; }    // metadata.generation counts changes of spec
  virtual bool create_on_update() const { return false; }     // PUT of a missing object creates it
  virtual bool unconditional_update() const { return true; }  // PUT without resourceVersion is allowed

  // What changes the generation, for kinds that track it.
  virtual bool spec_changed(const Message& now, const Message& before) const { return !field_equal(now, before, "spec"); }

  // Graceful deletion: the seconds an object lives on after a delete, 0 to remove it at once. Only pods have one.
  virtual std::int64_t grace_period(const Message&, std::optional<std::int64_t> /*requested*/) const { return 0; }
  virtual bool graceful() const { return false; }
  // Finalizers outside of metadata (a namespace's spec.finalizers): true while they keep the object.
  virtual bool held(const Message&) const { return false; }
  // When the deletion timestamp is set for the first time.
  virtual void mark_deleted(Message&) const {}
  // The finalize subresource (namespaces): `now` as written, to be reduced to what may change through it.
  virtual void prepare_for_finalize(Message& /*now*/, const Message& /*before*/) const {}

  // Fields that a field selector may name, after metadata.name and metadata.namespace, and their values in one object.
  virtual std::span<const std::string_view> selectable_fields() const { return {}; }
  virtual void field_values(const Message&, std::vector<std::string>&) const {}
  // The selectable field by which watchers are indexed (there are thousands of them per value); empty: metadata.name.
  virtual std::string_view index_field() const { return {}; }
};

// The same with the kind's own type.
template <typename T>
class TypedStrategy : public Strategy {
 public:
  void apply_defaults(Message& o) const final { defaults(static_cast<T&>(o)); }
  void prepare_for_create(Message& o) const final { before_create(static_cast<T&>(o)); }
  void prepare_for_update(Message& n, const Message& b) const final { before_update(static_cast<T&>(n), static_cast<const T&>(b)); }
  void prepare_for_status_update(Message& n, const Message& b) const final {
    before_status_update(static_cast<T&>(n), static_cast<const T&>(b));
  }
  void validate(const Message& o, field::ErrorList& e) const final { check(static_cast<const T&>(o), e); }
  void validate_update(const Message& n, const Message& b, field::ErrorList& e) const final {
    check_update(static_cast<const T&>(n), static_cast<const T&>(b), e);
  }
  void validate_status_update(const Message& n, const Message& b, field::ErrorList& e) const final {
    check_status_update(static_cast<const T&>(n), static_cast<const T&>(b), e);
  }
  void canonicalise(Message& o) const final { canonical(static_cast<T&>(o)); }
  Warnings warnings(const Message& o) const final { return warn(static_cast<const T&>(o)); }
  std::int64_t grace_period(const Message& o, std::optional<std::int64_t> requested) const final {
    return grace(static_cast<const T&>(o), requested);
  }
  void field_values(const Message& o, std::vector<std::string>& out) const final { values(static_cast<const T&>(o), out); }

 protected:
  virtual void defaults(T&) const {}
  virtual void before_create(T&) const {}
  virtual void before_update(T&, const T&) const {}
  virtual void before_status_update(T&, const T&) const {}
  virtual void check(const T&, field::ErrorList&) const {}
  virtual void check_update(const T& now, const T&, field::ErrorList& e) const { check(now, e); }
  virtual void check_status_update(const T&, const T&, field::ErrorList&) const {}
  virtual void canonical(T&) const {}
  virtual Warnings warn(const T&) const { return {}; }
  virtual std::int64_t grace(const T&, std::optional<std::int64_t>) const { return 0; }
  virtual void values(const T&, std::vector<std::string>&) const {}
};

}  // namespace fairlead::apiserver
