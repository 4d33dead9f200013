// fmt and Boost.JSON compiled into fairlead-cni. A runtime starts the program anew for every pod, and half of what a start
// costs is the dynamic linker's work on the C++ libraries: 1.8 ms with them, 1.0 ms without (a program that does nothing: 0.9).
#include <fmt/format-inl.h>

#include <boost/json/src.hpp>

FMT_BEGIN_NAMESPACE
namespace detail {
template auto dragonbox::to_decimal(float x) noexcept -> dragonbox::decimal_fp<float>;
template auto dragonbox::to_decimal(double x) noexcept -> dragonbox::decimal_fp<double>;
template auto locale_ref::get<std::locale>() const -> std::locale;
template auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template auto decimal_point_impl(locale_ref) -> char;
template void buffer<char>::append(const char*, const char*);
}  // namespace detail
FMT_END_NAMESPACE
