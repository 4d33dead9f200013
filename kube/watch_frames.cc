#include "kube/watch_frames.h"

namespace fairlead::kube {

void WatchFrames::add(std::string bytes) {
  // What was handed out before is no longer needed. An idle watch keeps no buffer.
  if (begin_ == buffer_.size()) {
    buffer_ = std::move(bytes);
    scanned_ -= begin_;
    begin_ = 0;
    return;
  }
  buffer_.erase(0, begin_);
  scanned_ -= begin_;
  begin_ = 0;
  buffer_ += bytes;
}

Result<std::optional<std::string_view>> WatchFrames::next() {
  auto frame = format_ == Format::json ? next_json() : next_protobuf();
  if (frame && !*frame && begin_ == buffer_.size()) {
    buffer_ = {};
    begin_ = scanned_ = 0;
  }
  return frame;
}

Result<std::optional<std::string_view>> WatchFrames::next_protobuf() {
  const std::string_view rest = std::string_view(buffer_).substr(begin_);
  if (rest.size() < 4) return std::nullopt;
  const auto byte = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(rest[i])); };
  const std::size_t size = byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
  if (size > max_frame_) return fail(ErrorCode::internal, "a watch event of {} bytes; at most {} are accepted", size, max_frame_);
  if (rest.size() - 4 < size) return std::nullopt;
  begin_ += 4 + size;
  scanned_ = begin_;
  return rest.substr(4, size);
}

void WatchFrames::skip_space() {
  while (begin_ < buffer_.size() && std::string_view(" \t\r\n").find(buffer_[begin_]) != std::string_view::npos) ++begin_;
}

Result<std::optional<std::string_view>> WatchFrames::next_json() {
  if (depth_ == 0) {
    skip_space();
    scanned_ = begin_;
    if (begin_ == buffer_.size()) return std::nullopt;
    if (buffer_[begin_] != '{') return fail(ErrorCode::internal, "a watch event does not start with {{");
  }
  for (; scanned_ < buffer_.size(); ++scanned_) {
    const char c = buffer_[scanned_];
    if (in_string_) {
      if (escaped_)
        escaped_ = false;
      else if (c == '\\')
        escaped_ = true;
      else if (c == '"')
        in_string_ = false;
      continue;
    }
    if (c == '"') in_string_ = true;
    if (c == '{' || c == '[') ++depth_;
    if ((c == '}' || c == ']') && --depth_ == 0) {
      const auto frame = std::string_view(buffer_).substr(begin_, scanned_ + 1 - begin_);
      if (frame.size() > max_frame_) return fail(ErrorCode::internal, "a watch event of more than {} bytes", max_frame_);
      begin_ = ++scanned_;
      return frame;
    }
  }
  if (scanned_ - begin_ > max_frame_) return fail(ErrorCode::internal, "a watch event of more than {} bytes", max_frame_);
  return std::nullopt;
}

bool WatchFrames::at_boundary() {
  if (format_ == Format::json && depth_ == 0) skip_space();
  return begin_ == buffer_.size() && depth_ == 0;
}

}  // namespace fairlead::kube
