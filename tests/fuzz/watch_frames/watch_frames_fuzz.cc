// The bytes of a watch from a broken server: no crash, bounded, and the same frames in whatever pieces they come.
#include "kube/watch_frames.h"

#include <vector>

#include "tests/fuzz/fuzz.h"

namespace {

using namespace fairlead;
using kube::WatchFrames;

std::vector<std::string> cut(std::string_view bytes, WatchFrames::Format format, std::size_t piece) {
  WatchFrames frames(format, 1000);
  std::vector<std::string> out;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    frames.add(std::string(bytes.substr(at, piece)));
    for (;;) {
      const auto f = frames.next();
      if (!f) {
        out.push_back("error");
        return out;
      }
      if (!*f) break;
      FUZZ_CHECK((*f)->size() <= 1000, "bounded");
      out.emplace_back(**f);
    }
  }
  if (!frames.at_boundary()) out.push_back("unfinished");
  return out;
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  if (bytes.size() > 4'000) return;
  for (const auto format : {WatchFrames::Format::json, WatchFrames::Format::protobuf}) {
    const auto whole = cut(bytes, format, bytes.size() + 1);
    for (const std::size_t piece : {1u, 5u}) {
      const auto split = cut(bytes, format, piece);
      FUZZ_CHECK(whole == split, std::to_string(whole.size()) + " and " + std::to_string(split.size()) + " frames");
    }
  }
}
