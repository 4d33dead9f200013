#include "controlplane/apiserver/storage/entry.h"

#include <algorithm>

#include "controlplane/apiserver/storage/value.h"

namespace fairlead::apiserver {
namespace {

int field_index(const Resource& resource, std::string_view field) {
  if (field == "metadata.name") return -2;
  if (field == "metadata.namespace") return -1;
  const auto names = resource.strategy->selectable_fields();
  const auto it = std::find(names.begin(), names.end(), field);
  return it == names.end() ? -3 : static_cast<int>(it - names.begin());
}

}  // namespace

const std::string* Entry::label(const std::string& wanted) const {
  const auto it = std::lower_bound(labels.begin(), labels.end(), wanted, [](const auto& l, const auto& k) { return l.first < k; });
  return it == labels.end() || it->first != wanted ? nullptr : &it->second;
}

EntryPtr make_entry(const Resource& resource, std::string key, etcd::Revision revision, Message& stored) {
  auto e = std::make_shared<Entry>();
  auto& meta = mutable_meta_of(stored);
  meta.set_resourceversion(std::to_string(revision));
  e->key = std::move(key);
  e->revision = revision;
  e->ns = meta.namespace_();
  e->name = meta.name();
  e->labels.reserve(meta.labels().size());
  for (const auto& [k, v] : meta.labels()) e->labels.emplace_back(k, v);
  std::sort(e->labels.begin(), e->labels.end());
  if (resource.from_storage && !resource.strategy->selectable_fields().empty()) {
    const auto served = resource.make();
    resource.from_storage(stored, *served);
    resource.strategy->field_values(*served, e->fields);
  } else {
    resource.strategy->field_values(stored, e->fields);
  }
  stored.SerializeToString(&e->raw);
  return e;
}

Result<EntryPtr> make_entry(const Resource& resource, std::string key, etcd::Revision revision, std::string_view value) {
  FL_TRY(const auto stored, decode_value(resource, key, value));
  return make_entry(resource, std::move(key), revision, *stored);
}

std::unique_ptr<Message> decode_entry(const Resource& resource, const Entry& entry) {
  std::unique_ptr<Message> stored(resource.storage_kind->prototype->New());
  stored->ParseFromString(entry.raw);  // our own serialisation
  if (!resource.from_storage) return stored;
  auto served = resource.make();
  resource.from_storage(*stored, *served);
  return served;
}

EntryPtr at_revision(const Resource& resource, const Entry& entry, etcd::Revision revision) {
  std::unique_ptr<Message> stored(resource.storage_kind->prototype->New());
  stored->ParseFromString(entry.raw);
  auto e = std::make_shared<Entry>(entry);
  mutable_meta_of(*stored).set_resourceversion(std::to_string(revision));
  e->revision = revision;
  e->raw.clear();
  stored->SerializeToString(&e->raw);
  return e;
}

Result<Selection> Selection::make(const Resource& resource, std::string_view ns, std::string_view name, kube::LabelSelector labels,
                                  const kube::FieldSelector& fields) {
  Selection s;
  s.prefix_ = resource.namespace_prefix(ns);
  s.labels_ = std::move(labels);
  if (!name.empty()) s.fields_.push_back({-2, true, std::string(name)});
  for (const auto& r : fields.requirements()) {
    const int index = field_index(resource, r.field);
    if (index == -3) return fail(ErrorCode::invalid_argument, "field label not supported: {}", r.field);
    s.fields_.push_back({index, r.equals, r.value});
  }
  const auto index_field = resource.strategy->index_field();
  const int indexed = index_field.empty() ? -2 : field_index(resource, index_field);
  for (const auto& f : s.fields_)
    if (f.index == indexed && f.equals) s.index_value_ = f.value;
  return s;
}

bool Selection::matches(const Entry& e) const {
  if (!e.key.starts_with(prefix_)) return false;
  for (const auto& f : fields_) {
    const auto& value = f.index == -2 ? e.name : f.index == -1 ? e.ns : e.fields[f.index];
    if ((value == f.value) != f.equals) return false;
  }
  return labels_.empty() || labels_.matches_lookup([&](const std::string& k) { return e.label(k); });
}

const std::string& index_value_of(const Resource& resource, const Entry& entry) {
  const auto field = resource.strategy->index_field();
  if (field.empty()) return entry.name;
  return entry.fields[field_index(resource, field)];
}

}  // namespace fairlead::apiserver
