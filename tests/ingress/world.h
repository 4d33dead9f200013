// Objects for tests, from YAML.
#pragma once

#include <string>

#include "ingress/core/compile.h"

namespace fairlead::ingress {

// Any number of documents; fails the process on anything else.
Objects objects_from(const std::string& yaml);
// A Service of one port 80 named "http" in `ns` with these endpoints ("10.0.0.1"), ready and on port 8080.
std::string service_yaml(const std::string& name, const std::vector<std::string>& addresses, const std::string& ns = "default", int port = 8080);
// An Ingress with one rule.
std::string ingress_yaml(const std::string& name, const std::string& host, const std::string& path, const std::string& type, const std::string& service,
                         const std::string& annotations = "{}", const std::string& extra = "");

// A Secret with these PEM texts; empty ones are left out.
std::string secret_yaml(const std::string& name, const std::string& ca, const std::string& chain, const std::string& key);

}  // namespace fairlead::ingress
