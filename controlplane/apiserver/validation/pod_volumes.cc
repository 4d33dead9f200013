// Volumes of a pod.
#include <fmt/core.h>

#include "controlplane/apiserver/validation/pod.h"
#include "kube/quantity.h"

namespace fairlead::apiserver {
namespace {

void check_relative_path(const std::string& path, const field::Path& at, field::ErrorList& out) {
  if (path.starts_with('/')) out.invalid(at, path, "must be a relative path");
  std::string_view rest = path;
  while (!rest.empty()) {
    const auto slash = rest.find('/');
    if (rest.substr(0, slash) == "..") {
      out.invalid(at, path, "must not contain '..'");
      return;
    }
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
}

void check_mode(bool present, std::int32_t mode, const field::Path& at, field::ErrorList& out) {
  if (present && (mode < 0 || mode > 0777)) out.invalid(at, mode, "must be a number between 0 and 0777 (octal), both inclusive");
}

void check_items(const google::protobuf::RepeatedPtrField<corev1::KeyToPath>& items, const field::Path& at, field::ErrorList& out) {
  for (int i = 0; i < items.size(); ++i) {
    const auto p = at.index(i);
    if (items[i].key().empty()) out.required(p.child("key"));
    if (items[i].path().empty())
      out.required(p.child("path"));
    else
      check_relative_path(items[i].path(), p.child("path"), out);
    check_mode(items[i].has_mode(), items[i].mode(), p.child("mode"), out);
  }
}

void check_downward(const google::protobuf::RepeatedPtrField<corev1::DownwardAPIVolumeFile>& items, const field::Path& at,
                    field::ErrorList& out) {
  for (int i = 0; i < items.size(); ++i) {
    const auto p = at.index(i);
    if (items[i].path().empty()) out.required(p.child("path"));
    check_relative_path(items[i].path(), p.child("path"), out);
    if (items[i].has_fieldref() == items[i].has_resourcefieldref())
      out.required(p, items[i].has_fieldref() ? "fieldRef and resourceFieldRef can not be specified simultaneously"
                                              : "one of fieldRef and resourceFieldRef is required");
  }
}

void check_projected(const corev1::ProjectedVolumeSource& v, const field::Path& at, field::ErrorList& out) {
  check_mode(v.has_defaultmode(), v.defaultmode(), at.child("defaultMode"), out);
  for (int i = 0; i < v.sources_size(); ++i) {
    const auto& s = v.sources(i);
    const auto p = at.child("sources").index(i);
    std::vector<const google::protobuf::FieldDescriptor*> set;
    s.GetReflection()->ListFields(s, &set);
    if (set.size() > 1) out.forbidden(p, "may not specify more than 1 volume type per source");
    if (s.has_secret()) {
      if (s.secret().localobjectreference().name().empty()) out.required(p.child("secret").child("name"));
      check_items(s.secret().items(), p.child("secret").child("items"), out);
    }
    if (s.has_configmap()) {
      if (s.configmap().localobjectreference().name().empty()) out.required(p.child("configMap").child("name"));
      check_items(s.configmap().items(), p.child("configMap").child("items"), out);
    }
    if (s.has_downwardapi()) check_downward(s.downwardapi().items(), p.child("downwardAPI").child("items"), out);
    if (s.has_serviceaccounttoken()) {
      const auto t = p.child("serviceAccountToken");
      if (s.serviceaccounttoken().expirationseconds() < 600)
        out.invalid(t.child("expirationSeconds"), s.serviceaccounttoken().expirationseconds(),
                    "may not specify a duration less than 10 minutes");
      if (s.serviceaccounttoken().path().empty()) out.required(t.child("path"));
    }
  }
}

void check_host_path(const corev1::HostPathVolumeSource& v, const field::Path& at, field::ErrorList& out) {
  if (v.path().empty()) {
    out.required(at.child("path"));
  } else if (v.path().find("..") != std::string::npos) {
    std::string_view rest = v.path();
    while (true) {
      const auto slash = rest.find('/');
      if (rest.substr(0, slash) == "..") {
        out.invalid(at.child("path"), v.path(), "must not contain '..'");
        break;
      }
      if (slash == std::string_view::npos) break;
      rest.remove_prefix(slash + 1);
    }
  }
  static constexpr std::string_view types[] = {"BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket", ""};
  if (std::find(std::begin(types), std::end(types), v.type()) == std::end(types)) out.not_supported(at.child("type"), v.type(), types);
}

void check_source(const corev1::VolumeSource& s, const field::Path& at, field::ErrorList& out) {
  std::vector<const google::protobuf::FieldDescriptor*> set;
  s.GetReflection()->ListFields(s, &set);
  if (set.empty()) return out.required(at, "must specify a volume type");
  for (std::size_t i = 1; i < set.size(); ++i) out.forbidden(at.child(set[i]->name()), "may not specify more than one volume type");
  if (s.has_hostpath()) check_host_path(s.hostpath(), at.child("hostPath"), out);
  if (s.has_emptydir() && s.emptydir().has_sizelimit()) {
    const auto q = kube::Quantity::parse(s.emptydir().sizelimit().string());
    if (q && q->is_negative()) out.forbidden(at.child("emptyDir").child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
  }
  if (s.has_secret()) {
    if (s.secret().secretname().empty()) out.required(at.child("secret").child("secretName"));
    check_mode(s.secret().has_defaultmode(), s.secret().defaultmode(), at.child("secret").child("defaultMode"), out);
    check_items(s.secret().items(), at.child("secret").child("items"), out);
  }
  if (s.has_configmap()) {
    if (s.configmap().localobjectreference().name().empty()) out.required(at.child("configMap").child("name"));
    check_mode(s.configmap().has_defaultmode(), s.configmap().defaultmode(), at.child("configMap").child("defaultMode"), out);
    check_items(s.configmap().items(), at.child("configMap").child("items"), out);
  }
  if (s.has_downwardapi()) check_downward(s.downwardapi().items(), at.child("downwardAPI").child("items"), out);
  if (s.has_projected()) check_projected(s.projected(), at.child("projected"), out);
  if (s.has_persistentvolumeclaim() && s.persistentvolumeclaim().claimname().empty())
    out.required(at.child("persistentVolumeClaim").child("claimName"));
  if (s.has_nfs()) {
    if (s.nfs().server().empty()) out.required(at.child("nfs").child("server"));
    if (s.nfs().path().empty()) out.required(at.child("nfs").child("path"));
    else if (!s.nfs().path().starts_with('/')) out.invalid(at.child("nfs").child("path"), s.nfs().path(), "must be an absolute path");
  }
  if (s.has_csi() && s.csi().driver().empty()) out.required(at.child("csi").child("driver"));
}

}  // namespace

VolumeNames validate_volumes(const google::protobuf::RepeatedPtrField<corev1::Volume>& volumes, const field::Path& path,
                             field::ErrorList& out) {
  VolumeNames names;
  for (int i = 0; i < volumes.size(); ++i) {
    const auto& v = volumes[i];
    const auto at = path.index(i);
    check_source(v.volumesource(), at, out);
    if (v.name().empty()) {
      out.required(at.child("name"));
      continue;
    }
    const auto complaints = check_dns1123_label(v.name());
    for (const auto& c : complaints) out.invalid(at.child("name"), v.name(), c);
    if (names.count(v.name())) out.duplicate(at.child("name"), v.name());
    if (complaints.empty()) names.insert(v.name());
  }
  return names;
}

}  // namespace fairlead::apiserver
