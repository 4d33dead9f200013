#include "ingress/http2/fields.h"

#include <algorithm>

#include "base/text.h"
#include "ingress/http2/wire.h"

namespace fairlead::ingress {
namespace {

// Sent bytes that may stay in front of a body before it is moved up.
constexpr std::size_t kSentBytes = 256 << 10;

template <typename F>
void each_line(std::string_view lines, F&& f) {
  while (!lines.empty()) {
    const auto size = std::min(lines.find('\n'), lines.size() - 1) + 1;
    f(lines.substr(0, size));
    lines.remove_prefix(size);
  }
}

}  // namespace

void FieldList::clear() {
  text_.clear();
  entries_.clear();
}

void FieldList::add(std::string_view name, std::string_view value) {
  const auto at = text_.size();
  for (const char c : name) text_ += lower(c);
  text_ += value;
  entries_.push_back({at, name.size(), at + name.size(), value.size()});
}

void FieldList::add_fields(const std::vector<Field>& fields) {
  // A name with an underscore is dropped from requests only, where CGI-like servers mix it up with another.
  for (const auto& f : fields)
    if (!f.drop || f.name.find('_') != std::string_view::npos) add(f.name, f.value);
}

void FieldList::add_lines(std::string_view lines) {
  each_line(lines, [&](std::string_view line) {
    Field f;
    if (parse_field_line(line, f)) add(f.name, f.value);
  });
}

void request_to_fields(std::string_view head, std::string_view scheme, bool te_trailers, FieldList& out) {
  out.clear();
  const auto end = head.find("\r\n");
  const auto line = head.substr(0, end);
  const auto first = line.find(' '), last = line.rfind(' ');
  const auto fields = head.substr(end + 2);
  out.add(":method", line.substr(0, first));
  out.add(":scheme", scheme);
  std::string_view authority;
  each_line(fields, [&](std::string_view text) {
    Field f;
    if (parse_field_line(text, f) && f.id == HeaderId::host) authority = f.value;
  });
  out.add(":authority", authority);
  out.add(":path", line.substr(first + 1, last - first - 1));
  each_line(fields, [&](std::string_view text) {
    Field f;
    if (parse_field_line(text, f) && !f.drop && f.id != HeaderId::host) out.add(f.name, f.value);
  });
  if (te_trailers) out.add("te", "trailers");
}

std::string forwardable_trailers(std::string_view lines) {
  std::string out;
  each_line(lines, [&](std::string_view line) {
    Field f;
    if (parse_field_line(line, f) && allowed_in_trailer(f)) out += line;
  });
  return out;
}

ssize_t OutgoingBody::read(nghttp2_session* session, std::int32_t id, std::uint8_t* to, std::size_t most, std::uint32_t* flags, bool& finished) {
  const auto n = std::min(most, backlog());
  if (n == 0 && !ended_) return NGHTTP2_ERR_DEFERRED;
  std::copy_n(data_.data() + sent_, n, to);
  sent_ += n;
  if (backlog() > 0) {
    if (sent_ >= kSentBytes) {
      data_.erase(0, sent_);
      sent_ = 0;
    }
    return static_cast<ssize_t>(n);
  }
  data_.clear();
  sent_ = 0;
  if (!ended_) return static_cast<ssize_t>(n);
  finished = true;
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (trailers_.empty()) return static_cast<ssize_t>(n);
  FieldList list;
  list.add_lines(trailers_);
  const auto nv = to_nv(list);
  if (nghttp2_submit_trailer(session, id, nv.data(), nv.size()) == 0) *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
  return static_cast<ssize_t>(n);
}

}  // namespace fairlead::ingress
