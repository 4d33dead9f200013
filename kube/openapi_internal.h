// Shared between the files of openapi only.
#pragma once

#include <boost/json/object.hpp>
#include <string>

namespace fairlead::kube {

// A Swagger document, as openapi.cc builds it, in gnostic's binary form.
std::string swagger_to_gnostic(const boost::json::object& document);

}  // namespace fairlead::kube
