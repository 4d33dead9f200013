#include "controlplane/apiserver/registry/registry.h"

#include <charconv>

#include "controlplane/apiserver/registry/admission.h"
#include "controlplane/apiserver/registry/continue_token.h"
#include "controlplane/apiserver/validation/custom_meta.h"

namespace fairlead::apiserver {
namespace {

constexpr int kNameAttempts = 8;
constexpr std::size_t kSuffix = 5;
constexpr std::size_t kMaxGeneratedBase = 63 - kSuffix;

void warn(const WriteOptions& options, Warnings more) {
  if (!options.warnings) return;
  for (auto& w : more) options.warnings->push_back(std::move(w));
}

bool waits_for_finalizers(const Resource& r, const Message& o) {
  return meta_of(o).finalizers_size() > 0 || r.strategy->held(o);
}

// An update that empties the finalizers of an object marked for deletion completes the deletion.
bool deletion_complete(const Resource& r, const Message& o) {
  const auto& m = meta_of(o);
  if (!m.has_deletiontimestamp() || waits_for_finalizers(r, o)) return false;
  return !r.strategy->graceful() || (m.has_deletiongraceperiodseconds() && m.deletiongraceperiodseconds() == 0);
}

}  // namespace

Result<etcd::Revision> parse_resource_version(std::string_view text) {
  if (text.empty()) return 0;
  etcd::Revision v = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (ec != std::errc() || end != text.data() + text.size() || v < 0)
    return fail(ErrorCode::invalid_argument, "Invalid value: \"{}\": strconv.ParseUint: parsing \"{}\": invalid syntax", text, text);
  return v;
}

// ---- create

ApiResult<> Registry::finish_create(const Resource& r, Message& o, const WriteOptions& options, Contention& contention,
                                    std::unique_ptr<Reservation>& reservation) {
  const auto check_meta = r.json_only ? validate_custom_meta : validate_meta;
  field::ErrorList errors = check_meta(meta_of(o), r.kind->namespaced(), r.strategy->name_check(), field::Path("metadata"));
  r.strategy->validate(o, errors);
  // Reserve only for what is valid, so that a bad object cannot use up addresses even for a moment.
  if (errors.empty() && r.hook) reservation = r.hook->create(o, contention, errors);
  if (!errors.empty()) return api_fail(invalid(*r.kind, meta_of(o).name(), errors));
  r.strategy->canonicalise(o);
  warn(options, r.strategy->warnings(o));
  return {};
}

Task<ApiResult<bool>> Registry::look_again(const Resource& r, Contention& contention, bool& looked) {
  if (!contention.exhausted || looked) co_return false;
  looked = true;
  contention = {};
  auto newest = co_await storage_.current_revision();
  if (!newest) co_return api_fail(std::move(newest).error());
  auto fresh = co_await feeder_.ensure_fresh(r.cache, *newest);
  if (!fresh) co_return api_fail(std::move(fresh).error());
  co_return true;
}

Task<ApiResult<Registry::Object>> Registry::create(const Resource& r, std::string ns, Object object, WriteOptions options) {
  auto& meta = mutable_meta_of(*object);
  if (r.kind->namespaced()) {
    if (meta.namespace_().empty()) meta.set_namespace_(ns);
    if (meta.namespace_() != ns)
      co_return api_fail(bad_request("the namespace of the provided object does not match the namespace sent on the request"));
  }
  if (!meta.resourceversion().empty())
    co_return api_fail(bad_request("resourceVersion should not be set on objects to be created"));
  if (r.kind->namespaced() && ns.empty()) co_return api_fail(bad_request("an empty namespace may not be set during creation"));

  meta.clear_deletiontimestamp();
  meta.clear_deletiongraceperiodseconds();
  meta.clear_selflink();
  meta.clear_managedfields();
  meta.clear_generation();
  if (r.strategy->tracks_generation()) meta.set_generation(1);
  meta.set_uid(random_uuid(random_));
  *meta.mutable_creationtimestamp() = to_time(clock_.wall());
  r.strategy->apply_defaults(*object);
  r.strategy->prepare_for_create(*object);

  const bool generate = meta.name().empty() && !meta.generatename().empty();
  const auto base = meta.generatename().substr(0, kMaxGeneratedBase);
  if (generate) meta.set_name(base + random_suffix(random_, kSuffix));
  auto admitted = co_await admission_.on_create(r, ns, *object, options);
  if (!admitted) co_return api_fail(std::move(admitted).error());

  int names = 1;
  bool looked = false;
  Contention contention;
  while (true) {
    auto draft = clone(*object);  // a hook fills in what another try may have to choose anew
    std::unique_ptr<Reservation> reservation;
    auto finished = finish_create(r, *draft, options, contention, reservation);
    if (!finished) {
      auto again = co_await look_again(r, contention, looked);
      if (!again) co_return api_fail(std::move(again).error());
      if (*again) continue;
      co_return api_fail(std::move(finished).error());
    }
    const auto name = meta_of(*draft).name();
    if (options.dry_run) {
      auto existing = co_await storage_.get(r, r.key(ns, name), name);
      if (existing) co_return api_fail(already_exists(*r.kind, name));
      if (reservation) {
        auto free = co_await storage_.claimable(*reservation);
        if (!free) co_return api_fail(std::move(free).error());
        if (!*free) continue;
      }
      co_return std::move(draft);
    }
    const auto refused = contention.refused.size();
    auto stored = co_await storage_.create(r, r.key(ns, name), *draft, r.ttl, reservation.get());
    if (stored) {
      if (reservation) reservation->commit(stored->revision);
      co_return std::move(stored->object);
    }
    if (contention.refused.size() > refused) continue;
    if (!generate || stored.error().reason != "AlreadyExists") co_return api_fail(std::move(stored).error());
    if (names++ == kNameAttempts) co_return api_fail(generate_name_conflict(*r.kind, name));
    mutable_meta_of(*object).set_name(base + random_suffix(random_, kSuffix));
  }
}

// ---- update

namespace {

ApiResult<> check_identity(const Resource& r, const std::string& ns, const std::string& name, Message& now) {
  auto& m = mutable_meta_of(now);
  if (m.name().empty()) m.set_name(name);
  if (m.name() != name)
    return api_fail(bad_request(fmt::format("the name of the object ({}) does not match the name on the URL ({})", m.name(), name)));
  if (!r.kind->namespaced()) {
    m.clear_namespace_();
    return {};
  }
  if (m.namespace_().empty()) m.set_namespace_(ns);
  if (m.namespace_() != ns)
    return api_fail(bad_request(fmt::format("the namespace of the object ({}) does not match the namespace on the request ({})",
                                            m.namespace_(), ns)));
  return {};
}

ApiResult<> check_versions(const Resource& r, Message& now, const Message& before) {
  auto& m = mutable_meta_of(now);
  const auto& b = meta_of(before);
  if (m.resourceversion().empty()) {
    if (!r.strategy->unconditional_update()) {
      field::ErrorList e;
      e.add({field::Type::invalid, "metadata.resourceVersion", "0", "must be specified for an update"});
      return api_fail(invalid(*r.kind, m.name(), e));
    }
    m.set_resourceversion(b.resourceversion());
  } else if (m.resourceversion() != b.resourceversion()) {
    return api_fail(modified_conflict(*r.kind, m.name()));
  }
  if (!m.uid().empty() && m.uid() != b.uid())
    return api_fail(conflict(*r.kind, m.name(),
                             fmt::format("Precondition failed: UID in precondition: {}, UID in object meta: {}", m.uid(), b.uid())));
  return {};
}

// What the system owns and a writer cannot change.
void carry_over(Message& now, const Message& before) {
  auto& m = mutable_meta_of(now);
  const auto& b = meta_of(before);
  m.set_uid(b.uid());
  *m.mutable_creationtimestamp() = b.creationtimestamp();
  m.clear_deletiontimestamp();
  m.clear_deletiongraceperiodseconds();
  if (b.has_deletiontimestamp()) *m.mutable_deletiontimestamp() = b.deletiontimestamp();
  if (b.has_deletiongraceperiodseconds()) m.set_deletiongraceperiodseconds(b.deletiongraceperiodseconds());
  m.clear_generation();
  if (b.has_generation()) m.set_generation(b.generation());
  m.clear_selflink();
  m.clear_managedfields();
  if (m.generatename().empty() && !b.generatename().empty()) m.set_generatename(b.generatename());
}

}  // namespace

ApiResult<> Registry::finish_update(const Resource& r, Part part, Message& now, const Message& before, const WriteOptions& options,
                                    Contention& contention, std::unique_ptr<Reservation>& reservation) {
  const auto& s = *r.strategy;
  carry_over(now, before);
  s.apply_defaults(now);
  if (part == Part::main) {
    s.prepare_for_update(now, before);
    if (s.tracks_generation() && s.spec_changed(now, before)) mutable_meta_of(now).set_generation(meta_of(before).generation() + 1);
  } else if (part == Part::status) {
    copy_field(before, now, "spec");
    s.prepare_for_status_update(now, before);
  } else if (part == Part::finalize) {
    s.prepare_for_finalize(now, before);
  }
  const auto check_meta = r.json_only ? validate_custom_meta_update : validate_meta_update;
  auto errors = check_meta(meta_of(now), meta_of(before), field::Path("metadata"));
  if (part == Part::main)
    s.validate_update(now, before, errors);
  else if (part == Part::status)
    s.validate_status_update(now, before, errors);
  if (errors.empty() && r.hook && part == Part::main) reservation = r.hook->update(now, before, contention, errors);
  if (!errors.empty()) return api_fail(invalid(*r.kind, meta_of(now).name(), errors));
  s.canonicalise(now);
  if (part == Part::main) warn(options, s.warnings(now));
  return {};
}

Task<ApiResult<Registry::UpdateResult>> Registry::update(const Resource& r, std::string ns, std::string name, Part part, Edit edit,
                                                         WriteOptions options) {
  const auto key = r.key(ns, name);
  // What a call of the transform found, for after the transaction.
  struct Shared {
    Contention contention;
    std::unique_ptr<Reservation> reservation;
    Object result;
    bool absent = false;
    Warnings warnings;
  } shared;
  bool looked = false;
  for (int attempt = 0;; ++attempt) {
    const auto change = [&](const Message* current) -> ApiResult<Storage::Outcome> {
      shared.reservation.reset();
      shared.result.reset();
      shared.warnings.clear();
      shared.absent = current == nullptr;
      if (!current && !(part == Part::main && r.strategy->create_on_update())) return api_fail(not_found(*r.kind, name));
      auto edited = edit(current);
      if (!edited) return api_fail(std::move(edited).error());
      auto now = std::move(*edited);
      API_CHECK(check_identity(r, ns, name, *now));
      if (!current) {
        shared.result = std::move(now);
        return Storage::Outcome{};
      }
      API_CHECK(check_versions(r, *now, *current));
      auto quiet = options;
      quiet.warnings = &shared.warnings;
      API_CHECK(finish_update(r, part, *now, *current, quiet, shared.contention, shared.reservation));
      Storage::Outcome out;
      out.ttl = r.ttl;
      if (options.dry_run) {
        shared.result = std::move(now);
        return out;
      }
      if (deletion_complete(r, *now)) {
        out.remove = true;
        if (r.hook) shared.reservation = r.hook->remove(*current);
      }
      out.reservation = shared.reservation.get();
      out.put = std::move(now);
      return out;
    };
    auto done = co_await storage_.update(r, key, name, change, nullptr);
    if (!done && !(shared.absent && shared.result)) {
      auto again = co_await look_again(r, shared.contention, looked);
      if (!again) co_return api_fail(std::move(again).error());
      if (*again) continue;
      co_return api_fail(std::move(done).error());
    }
    if (shared.absent) {  // PUT of a new object
      auto object = std::move(shared.result);
      mutable_meta_of(*object).clear_uid();
      if (!meta_of(*object).resourceversion().empty() && meta_of(*object).resourceversion() != "0")
        co_return api_fail(not_found(*r.kind, name));
      mutable_meta_of(*object).clear_resourceversion();
      auto created = co_await create(r, ns, std::move(object), options);
      if (created) co_return UpdateResult{std::move(*created), true};
      if (created.error().reason != "AlreadyExists" || attempt == 4) co_return api_fail(std::move(created).error());
      continue;  // somebody created it meanwhile
    }
    if (options.dry_run && shared.reservation) {
      auto free = co_await storage_.claimable(*shared.reservation);
      if (!free) co_return api_fail(std::move(free).error());
      if (!*free) continue;
    }
    warn(options, std::move(shared.warnings));
    if (options.dry_run) co_return UpdateResult{std::move(shared.result), false};
    if (shared.reservation && done->written) shared.reservation->commit(done->stored.revision);
    co_return UpdateResult{std::move(done->stored.object), false};
  }
}

// ---- delete

namespace {

ApiResult<> check_preconditions(const Resource& r, const metav1::DeleteOptions& how, const Message& o) {
  const auto& m = meta_of(o);
  const auto& p = how.preconditions();
  if (p.has_uid() && p.uid() != m.uid())
    return api_fail(conflict(*r.kind, m.name(),
                             fmt::format("Precondition failed: UID in precondition: {}, UID in object meta: {}", p.uid(), m.uid())));
  if (p.has_resourceversion() && p.resourceversion() != m.resourceversion())
    return api_fail(conflict(*r.kind, m.name(),
                             fmt::format("Precondition failed: ResourceVersion in precondition: {}, ResourceVersion in object meta: {}",
                                         p.resourceversion(), m.resourceversion())));
  return {};
}

void set_finalizer(metav1::ObjectMeta& m, std::string_view which, bool present) {
  auto& list = *m.mutable_finalizers();
  const auto it = std::find(list.begin(), list.end(), which);
  if (present && it == list.end()) *list.Add() = std::string(which);
  if (!present && it != list.end()) list.erase(it);
}

// The two finalizers that carry a propagation policy to the garbage collector.
void set_propagation(Message& o, const metav1::DeleteOptions& how) {
  auto& m = mutable_meta_of(o);
  bool orphan = false, foreground = false;
  if (how.has_orphandependents()) {
    orphan = how.orphandependents();
  } else if (how.has_propagationpolicy()) {
    orphan = how.propagationpolicy() == "Orphan";
    foreground = how.propagationpolicy() == "Foreground";
  } else {
    return;  // finalizers that are there already decide
  }
  set_finalizer(m, "orphan", orphan);
  set_finalizer(m, "foregroundDeletion", foreground);
}

ApiResult<> check_delete_options(const Resource& r, const metav1::DeleteOptions& how) {
  field::ErrorList e;
  if (how.has_orphandependents() && how.has_propagationpolicy())
    e.add({field::Type::invalid, "propagationPolicy", field::quote(how.propagationpolicy()),
           "orphanDependents and deletionPropagation cannot be both set"});
  const auto& policy = how.propagationpolicy();
  if (how.has_propagationpolicy() && policy != "Foreground" && policy != "Background" && policy != "Orphan")
    e.not_supported(field::Path("propagationPolicy"), policy, {"Background", "Foreground", "Orphan"});
  if (e.empty()) return {};
  (void)r;
  return api_fail(invalid("meta.k8s.io", "DeleteOptions", "", e));
}

}  // namespace

Task<ApiResult<Registry::DeleteResult>> Registry::remove(const Resource& r, std::string ns, std::string name, metav1::DeleteOptions how,
                                                         WriteOptions options) {
  API_CO_CHECK(check_delete_options(r, how));
  Object dry_result;
  bool dry_gone = false;
  std::unique_ptr<Reservation> reservation;
  const auto change = [&](const Message* current) -> ApiResult<Storage::Outcome> {
    if (!current) return api_fail(not_found(*r.kind, name));
    API_CHECK(check_preconditions(r, how, *current));
    API_CHECK(admission_.on_delete(r, *current, options));
    auto now = clone(*current);
    auto& m = mutable_meta_of(*now);
    set_propagation(*now, how);
    std::optional<std::int64_t> wanted;
    if (how.has_graceperiodseconds()) wanted = how.graceperiodseconds();
    auto grace = r.strategy->graceful() ? r.strategy->grace_period(*now, wanted) : 0;
    const bool marked = m.has_deletiontimestamp();
    // A second delete may only shorten the time that is left.
    if (marked && m.has_deletiongraceperiodseconds()) {
      const auto before = m.deletiongraceperiodseconds();
      if (!wanted || grace >= before) grace = before;
    }
    const bool hold = waits_for_finalizers(r, *now);
    Storage::Outcome out;
    out.ttl = r.ttl;
    reservation.reset();
    if (grace > 0 || hold) {
      const auto started = marked ? from_time(m.deletiontimestamp()) - std::chrono::seconds(m.deletiongraceperiodseconds()) : clock_.wall();
      const bool shortened = marked && m.has_deletiongraceperiodseconds() && grace < m.deletiongraceperiodseconds();
      if (!marked || shortened) {
        *m.mutable_deletiontimestamp() = to_time((shortened ? clock_.wall() : started) + std::chrono::seconds(grace));
        m.set_deletiongraceperiodseconds(grace);
        if (m.has_generation() && !marked) m.set_generation(m.generation() + 1);
        r.strategy->mark_deleted(*now);
      }
    } else {
      out.remove = true;
    }
    if (options.dry_run) {
      dry_result = std::move(now);
      dry_gone = out.remove;
      return Storage::Outcome{};
    }
    if (out.remove && r.hook) reservation = r.hook->remove(*current);
    out.reservation = reservation.get();
    out.put = std::move(now);
    return out;
  };
  auto done = co_await storage_.update(r, r.key(ns, name), name, change, nullptr);
  if (!done) co_return api_fail(std::move(done).error());
  if (options.dry_run) co_return DeleteResult{std::move(dry_result), dry_gone};
  co_return DeleteResult{std::move(done->stored.object), done->removed};
}

Task<ApiResult<ListResult>> Registry::remove_collection(const Resource& r, ListQuery query, metav1::DeleteOptions how,
                                                        WriteOptions options) {
  auto found = co_await list(r, query);
  if (!found) co_return api_fail(std::move(found).error());
  for (const auto& e : found->items) {
    auto one = co_await remove(r, e->ns, e->name, how, options);
    if (!one && one.error().reason != "NotFound") co_return api_fail(std::move(one).error());
  }
  co_return std::move(*found);
}

// ---- read

Task<ApiResult<Registry::Object>> Registry::get(const Resource& r, std::string ns, std::string name, std::string resource_version) {
  const auto key = r.key(ns, name);
  if (!resource_version.empty()) {
    auto wanted = parse_resource_version(resource_version);
    if (!wanted) co_return api_fail(bad_request(wanted.error().message));
    auto fresh = co_await feeder_.ensure_fresh(r.cache, *wanted);
    if (!fresh) co_return api_fail(std::move(fresh).error());
    const auto entry = r.cache->get(key);
    if (!entry) co_return api_fail(not_found(*r.kind, name));
    co_return decode_entry(r, *entry);
  }
  auto stored = co_await storage_.get(r, key, name);
  if (!stored) co_return api_fail(std::move(stored).error());
  co_return std::move(stored->object);
}

ApiResult<> check_list_parameters(const ListQuery& q) {
  field::ErrorList e;
  const field::Path match("resourceVersionMatch");
  if (!q.resource_version_match.empty()) {
    if (q.resource_version.empty())
      e.forbidden(match, "resourceVersionMatch is forbidden unless resourceVersion is provided");
    if (!q.continue_token.empty()) e.forbidden(match, "resourceVersionMatch is forbidden when continue is provided");
    if (q.resource_version_match != "Exact" && q.resource_version_match != "NotOlderThan")
      e.not_supported(match, q.resource_version_match, {"Exact", "NotOlderThan", ""});
    if (q.resource_version_match == "Exact" && q.resource_version == "0")
      e.forbidden(match, "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"");
  }
  if (!e.empty()) return api_fail(invalid("meta.k8s.io", "ListOptions", "", e));
  return {};
}

Task<ApiResult<ListResult>> Registry::list_exact(const Resource& r, Selection selection, std::int64_t limit, etcd::Revision revision,
                                                 std::string after_key) {
  auto listed = co_await storage_.list(r, selection, after_key, static_cast<std::size_t>(limit), revision);
  if (!listed) co_return api_fail(std::move(listed).error());
  ListResult out;
  out.revision = listed->revision;
  out.items = std::move(listed->items);
  if (listed->more) {
    out.continue_token = encode_continue(listed->revision, listed->last_key, selection.prefix());
    if (selection.everything()) out.remaining = listed->remaining;
  }
  co_return out;
}

Task<ApiResult<ListResult>> Registry::list(const Resource& r, ListQuery q) {
  API_CO_CHECK(check_list_parameters(q));
  auto selection = Selection::make(r, q.ns, "", q.labels, q.fields);
  if (!selection) co_return api_fail(bad_request(selection.error().message));
  auto wanted = parse_resource_version(q.resource_version);
  if (!wanted) co_return api_fail(bad_request(fmt::format("resourceVersion: {}", wanted.error().message)));

  if (!q.continue_token.empty()) {
    auto token = decode_continue(q.continue_token, selection->prefix());
    if (!token) co_return api_fail(bad_request(token.error().message));
    if (*wanted != 0) co_return api_fail(bad_request("specifying resource version is not allowed when using continue"));
    const auto revision = token->revision < 0 ? 0 : token->revision;
    auto page = co_await list_exact(r, *selection, q.limit, revision, token->after_key);
    if (!page && page.error().reason == "Expired") {
      page.error().message =
          "The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
          "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with "
          "the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the "
          "first chunk was returned and now may show up in the list.";
      page.error().continue_token = encode_continue(-1, token->after_key, selection->prefix());
    }
    co_return page;
  }
  const bool exact = q.resource_version_match == "Exact" || (*wanted > 0 && q.limit > 0 && q.resource_version_match.empty());
  if (exact) {
    auto page = co_await list_exact(r, *selection, q.limit, *wanted, "");
    co_return page;
  }

  // Everything else is served from the cache, once it is as new as asked for.
  auto at_least = *wanted;
  if (q.resource_version.empty()) {
    auto newest = co_await storage_.current_revision();
    if (!newest) co_return api_fail(std::move(newest).error());
    at_least = *newest;
  }
  auto fresh = co_await feeder_.ensure_fresh(r.cache, at_least);
  if (!fresh) co_return api_fail(std::move(fresh).error());
  const bool any = q.resource_version == "0";  // a limit is not honoured for "any state", as upstream
  auto page = r.cache->list(*selection, any ? 0 : static_cast<std::size_t>(q.limit));
  ListResult out;
  out.revision = page.revision;
  out.items = std::move(page.items);
  if (page.more) {
    out.continue_token = encode_continue(page.revision, page.last_key, selection->prefix());
    out.remaining = page.remaining;
  }
  co_return out;
}

}  // namespace fairlead::apiserver
