// The one door to Boost.Asio: separate compilation, the aliases used everywhere, and deadlines.
//
// Concurrency model of the house: every daemon has one io_context run by one or a few threads; state is owned by one
// strand (or by a single-threaded io_context); connections are coroutines that own what they use and read immutable
// snapshots. Awaits name their token: `co_await timer.async_wait(net::use_result)`. Nothing holds a lock over co_await.
//
// Errors: net::use_result makes an Asio operation return (error_code, values...) instead of throwing.
// GCC 12 miscompiles some co_await expressions (the temporary is destroyed twice). So:
//   - give co_await its own statement, never inside a conditional expression or a braced initialiser list;
//   - pass coroutine parameters by value;
//   - no braced aggregate among the arguments (`co_await f(Options{.x = 1})`, `co_await f({})`, also as default argument):
//     name it first, and give option structs of coroutines a defaulted constructor, which makes them no aggregates;
//   - no lambda with captures among the arguments, also not converted to std::function: name it first.
// Strings, smart pointers and other classes with constructors are fine as temporaries.
#pragma once

#ifndef BOOST_ASIO_SEPARATE_COMPILATION
#define BOOST_ASIO_SEPARATE_COMPILATION
#endif
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <functional>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"

namespace fairlead {
namespace net = boost::asio;

template <typename T = void>
using Task = net::awaitable<T>;

inline constexpr auto use_result = net::as_tuple(net::use_awaitable);

// An Error from an Asio error code: the code follows the errno behind it; end of file is "unavailable".
Error asio_error(const boost::system::error_code& ec, std::string_view what);

// Waits; returns cancelled when the surrounding coroutine is cancelled.
Task<Result<>> sleep_for(std::chrono::nanoseconds duration);

net::ip::tcp::endpoint to_endpoint(const SocketAddress& a);
SocketAddress from_endpoint(const net::ip::tcp::endpoint& e);

}  // namespace fairlead
