// RequestInfo: what a URL and method ask for, before anything is looked up: "/api/v1/namespaces/ns/pods/name/log" with GET
// is verb get on pods/log. Everything later (authorization, routing, audit) reads it. Pure.
// Source: staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/http/message.h"

namespace fairlead::apiserver {

struct RequestInfo {
  bool is_resource = false;  // below /api/<v> or /apis/<g>/<v>
  bool collection = false;   // no name in the path
  std::string path;
  std::string verb;  // get, list, watch, create, update, patch, delete, deletecollection; else the lower-case method
  std::string group;
  std::string version;
  std::string ns;
  std::string resource;
  std::string subresource;
  std::string name;  // from the path, or from a metadata.name field selector on a collection
  std::vector<std::string> rest;  // path segments after the subresource
};

RequestInfo parse_request_info(std::string_view method, const http::Target& target);

}  // namespace fairlead::apiserver
