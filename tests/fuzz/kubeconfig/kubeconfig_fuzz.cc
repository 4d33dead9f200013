// Any text as a kubeconfig: it is refused with words, or names a server; what was read can be written, and reads back the same.
#include "kube/kubeconfig.h"

#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::kube;

void fuzz_one(std::string_view bytes) {
  // A folder that is not there: the text decides what is read, not the machine.
  const auto read = parse_kubeconfig(bytes, "/nonexistent/kube");
  if (!read) {
    FUZZ_CHECK(!read.error().message.empty(), "an error without words");
    return;
  }
  FUZZ_CHECK(!read->server.empty(), "a configuration without a server");
  if (!read->token_file.empty()) return;  // written are only contents
  const auto text = write_kubeconfig(*read, "c", "u");
  const auto again = parse_kubeconfig(text, "/nonexistent/kube");
  FUZZ_CHECK(again.has_value(), text);
  FUZZ_CHECK(again->server == read->server && again->token == read->token && again->ca_pem == read->ca_pem && again->certificate_pem == read->certificate_pem, text);
}
