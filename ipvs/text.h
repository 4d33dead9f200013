// Values of this folder in the language of ipvsadm, ipset, ip and iptables, for people, golden files and error messages. Sorted, so that
// equal states have equal text.
#pragma once

#include <string>

#include "ipvs/model.h"

namespace fairlead::ipvs {

std::string to_text(const ServerKey& k);                        // "-t 10.96.0.1:80"
std::string to_text(const SetSpec& s);                          // "KUBE-CLUSTER-IP hash:ip,port family inet maxelem 1048576"
std::string to_text(SetType type, const Entry& e);              // "10.96.0.1,tcp:80"
std::string to_text(const Op& op);                              // a command; several lines where rules are written
std::string to_text(const State& s);
// The input of iptables-restore --noflush.
std::string restore_input(const op::WriteRules& w);

}  // namespace fairlead::ipvs
