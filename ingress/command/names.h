// Addresses of names that Ingresses lead to outside of the cluster: spec.externalName of Services, hosts of auth-url and
// mirror-target. Each name is looked up in the background, with the DNS servers and search list of /etc/resolv.conf, and again when
// the time its records live is over (kept between 5 s and 5 min). While servers do not answer, what was found last stays; a name
// that they say does not exist has no addresses.
//
// Bounded: 1,000 names, 64 addresses each, two lookups at once. Thread: the executor's; lookups block threads of their own, and
// `changed` is called on the executor when the addresses of a name have become other ones.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/ip.h"

namespace fairlead::ingress {

struct NamesOptions {
  std::optional<SocketAddress> server;  // instead of those of /etc/resolv.conf; IPv4
};

class Names {
 public:
  Names(net::any_io_executor executor, NamesOptions options, std::function<void()> changed);
  ~Names();
  void follow(const std::set<std::string>& names);  // from now on these
  std::map<std::string, std::vector<IpAddress>> found() const;
  void stop();  // `changed` is not called any more

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// What one question to DNS gave. `final`: the answer is the server's, also when it is that there is no such name.
struct Lookup {
  std::vector<IpAddress> addresses;  // sorted
  unsigned ttl_seconds = 0;
  bool final = false;
};
// The records of one type in an answer as it came, or nothing when it is malformed. Pure.
std::optional<Lookup> read_answer(const std::vector<unsigned char>& message, Family family);

}  // namespace fairlead::ingress
