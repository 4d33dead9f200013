// Any text as a KubeProxyConfiguration: it is refused with words, or a configuration comes out that can be written, and reads back as
// what it was.
#include "proxy/config.h"

#include <boost/json/serialize.hpp>

#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::proxy;

void fuzz_one(std::string_view bytes) {
  Config config;
  std::vector<std::string> notes;
  if (const auto read = read_config(bytes, config, notes); !read) {
    FUZZ_CHECK(!read.error().message.empty(), "an error without words");
    return;
  }
  for (const auto& n : notes) FUZZ_CHECK(!n.empty(), "a note without words");
  if (const auto valid = validate(config); !valid) FUZZ_CHECK(!valid.error().message.empty(), "a refusal without words");
  const auto text = write_config(config);
  Config again;
  notes.clear();
  const auto reread = read_config(text, again, notes);
  FUZZ_CHECK(reread.has_value(), text + (reread ? "" : reread.error().message));
  FUZZ_CHECK(notes.empty(), text + (notes.empty() ? "" : notes.front()));
  FUZZ_CHECK(boost::json::serialize(config_as_json(again)) == boost::json::serialize(config_as_json(config)), text);
}
