// Cuts the byte stream of a watch into frames, for both wire formats, without I/O:
//   protobuf  4 bytes of length, big endian, then a WatchEvent
//   JSON      one object after another; the usual newline between them is not needed
// A frame is bounded; a longer one, or bytes that can start none, is an error that ends the watch. Values, one owner.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead::kube {

inline constexpr std::size_t kMaxWatchFrame = 32u << 20;

class WatchFrames {
 public:
  enum class Format { json, protobuf };
  explicit WatchFrames(Format format, std::size_t max_frame = kMaxWatchFrame) : format_(format), max_frame_(max_frame) {}

  void add(std::string bytes);
  // The next complete frame (valid until the next call of either function); nullopt: more bytes are needed.
  Result<std::optional<std::string_view>> next();
  // True between frames: the stream may end here.
  bool at_boundary();

 private:
  Result<std::optional<std::string_view>> next_json();
  Result<std::optional<std::string_view>> next_protobuf();
  void skip_space();

  const Format format_;
  const std::size_t max_frame_;
  std::string buffer_;
  std::size_t begin_ = 0;    // of the current frame in buffer_
  std::size_t scanned_ = 0;  // JSON: up to here the state below holds
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace fairlead::kube
