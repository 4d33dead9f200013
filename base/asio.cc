#include "base/asio.h"

#include <boost/asio/impl/src.hpp>

namespace fairlead {

Error asio_error(const boost::system::error_code& ec, std::string_view what) {
  if (ec.category() == boost::system::system_category() || ec.category() == boost::system::generic_category())
    return errno_error(ec.value(), what);
  const auto code = ec == net::error::eof ? ErrorCode::unavailable
                    : ec == net::error::operation_aborted ? ErrorCode::cancelled
                    : ec == net::error::host_not_found    ? ErrorCode::not_found
                                                          : ErrorCode::internal;
  return Error{code, fmt::format("{}: {}", what, ec.message()), 0};
}

Task<Result<>> sleep_for(std::chrono::nanoseconds duration) {
  net::steady_timer timer(co_await net::this_coro::executor);
  timer.expires_after(duration);
  auto [ec] = co_await timer.async_wait(use_result);
  if (ec) co_return fail(asio_error(ec, "wait"));
  co_return Result<>{};
}

net::ip::tcp::endpoint to_endpoint(const SocketAddress& a) {
  const auto b = a.ip.bytes();
  if (a.ip.is_v4()) return {net::ip::address_v4(a.ip.v4_host_order()), a.port};
  net::ip::address_v6::bytes_type raw;
  std::copy(b.begin(), b.end(), raw.begin());
  return {net::ip::address_v6(raw), a.port};
}

SocketAddress from_endpoint(const net::ip::tcp::endpoint& e) {
  if (e.address().is_v4()) return {IpAddress::v4(e.address().to_v4().to_uint()), e.port()};
  const auto raw = e.address().to_v6().to_bytes();
  return {IpAddress::v6(raw), e.port()};
}

}  // namespace fairlead
