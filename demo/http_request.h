// The little of HTTP/1.1 that the demo server needs: heads of requests, without body content. Pure; bounded by the caller.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fairlead::demo {

struct HttpRequest {
  std::string method;
  std::string path;   // without the query
  std::string query;  // without the question mark
  bool keep_alive = true;
  bool wants_text = false;  // Accept: text/plain
  std::size_t content_length = 0;
};

enum class ParseState { incomplete, complete, malformed };

// Reads one head from the front of input. complete: head_size is what to drop before the body of content_length bytes.
ParseState parse_request(std::string_view input, HttpRequest& out, std::size_t& head_size);

// The value of a query parameter, undecoded; empty when it is not there.
std::string query_value(std::string_view query, std::string_view key);

}  // namespace fairlead::demo
