#include "ipvs/retry.h"

#include <linux/netfilter/ipset/ip_set.h>

#include <cerrno>
#include <optional>

#include "ipvs/text.h"

namespace fairlead::ipvs {
namespace {

constexpr int kTries = 10;  // pauses of 1, 2, 4 ... 256 ms between them

bool passes(const Error& e) {
  switch (e.sys_errno) {
    case EBUSY:
    case ENOBUFS:
    case EINTR:
    case EAGAIN:
    case ENOMEM:
    case IPSET_ERR_BUSY:  // rules that used the set are still being freed
    case IPSET_ERR_REFERENCED: return true;
    default: return false;
  }
}

Error explained(Error e) {
  switch (e.sys_errno) {
    case IPSET_ERR_FIND_TYPE: e.message += " (this kernel has no such type of set)"; break;
    case IPSET_ERR_MAX_SETS: e.message += " (too many sets)"; break;
    case IPSET_ERR_BUSY:
    case IPSET_ERR_REFERENCED: e.message += " (the set is in use)"; break;
    case IPSET_ERR_EXIST: e.message += " (it exists, and is different)"; break;
    case IPSET_ERR_TYPE_SPECIFIC: e.message += " (the set is full)"; break;
    default: break;
  }
  return e;
}

bool adds(const Op& op) { return std::holds_alternative<op::AddServer>(op) || std::holds_alternative<op::AddReal>(op); }

// Whether the error says that this removal has nothing to do.
bool is_done(const Op& op, const Error& e, bool again) {
  if (!is_gone(e)) return false;
  if (std::holds_alternative<op::Unbind>(op) || std::holds_alternative<op::DestroySet>(op)) return true;
  return again && (std::holds_alternative<op::DeleteServer>(op) || std::holds_alternative<op::DeleteReal>(op));
}

// Whether it is the thing itself that the kernel does not take.
bool is_refusal(const Op& op, const Error& e) {
  if (std::holds_alternative<op::AddReal>(op)) return e.sys_errno == EINVAL;
  return std::holds_alternative<op::Bind>(op) && (e.sys_errno == EINVAL || e.sys_errno == EADDRNOTAVAIL);
}

}  // namespace

bool is_gone(const Error& e) {
  return e.sys_errno == ENOENT || e.sys_errno == ESRCH || e.sys_errno == EADDRNOTAVAIL || e.code == ErrorCode::not_found;
}

Result<CommitReport> carry_out(std::span<const Op> ops, const Courier& courier) {
  struct Pending {
    const Op* op;
    bool edit;
  };
  std::vector<Pending> pending;
  pending.reserve(ops.size());
  for (const auto& op : ops) pending.push_back({&op, false});
  CommitReport report;
  for (int attempt = 1;; ++attempt) {
    std::vector<netlink::Bytes> messages;
    messages.reserve(pending.size());
    for (const auto& p : pending) messages.push_back(courier.message(*p.op, p.edit));
    auto results = courier.send(std::move(messages));
    std::vector<Pending> failed;
    std::optional<Error> first;
    bool retry = false;
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i]) continue;
      auto& e = results[i].error();
      const auto& p = pending[i];
      if (is_done(*p.op, e, attempt > 1)) continue;
      if (is_refusal(*p.op, e)) {
        report.refused.push_back({*p.op, std::move(e)});
        continue;
      }
      const bool there = attempt > 1 && !p.edit && adds(*p.op) && e.sys_errno == EEXIST;
      // A real server that found no virtual server may find it once that was made.
      retry = retry || passes(e) || there;
      failed.push_back({p.op, p.edit || there});
      if (!first) first = std::move(e);
    }
    if (failed.empty()) return report;
    if (!retry || attempt == kTries) return fail(explained(std::move(*first)).with("{}", to_text(*failed.front().op)));
    report.retries += failed.size();
    pending = std::move(failed);
    courier.pause(std::chrono::milliseconds(1 << (attempt - 1)));
  }
}

}  // namespace fairlead::ipvs
