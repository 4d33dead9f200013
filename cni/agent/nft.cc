#include "cni/agent/nft.h"

#include <nftables/libnftables.h>

#include "base/scope_guard.h"

namespace fairlead::cni {

Result<std::string> run_nft_output(const std::string& commands) {
  nft_ctx* ctx = ::nft_ctx_new(NFT_CTX_DEFAULT);
  if (ctx == nullptr) return fail(ErrorCode::internal, "libnftables: no context");
  const auto free = on_exit([&] { ::nft_ctx_free(ctx); });
  ::nft_ctx_buffer_output(ctx);
  ::nft_ctx_buffer_error(ctx);
  if (::nft_run_cmd_from_buffer(ctx, commands.c_str()) == 0) {
    const char* out = ::nft_ctx_get_output_buffer(ctx);
    return std::string(out ? out : "");
  }
  std::string why = ::nft_ctx_get_error_buffer(ctx);
  while (!why.empty() && why.back() == '\n') why.pop_back();
  return fail(ErrorCode::failed_precondition, "nftables: {}", why);
}

Result<> run_nft(const std::string& commands) {
  FL_CHECK(run_nft_output(commands));
  return {};
}

}  // namespace fairlead::cni
