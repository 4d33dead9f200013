#include "ingress/runtime/own_request.h"

#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {

constexpr std::size_t kReadOver = 64 << 10;
constexpr std::int64_t kMirrorMs = 300'000;
constexpr std::int64_t kMirrorAnswerMs = 60'000;
constexpr unsigned kMostMirrors = 256;

}  // namespace

OwnCall::OwnCall(Worker& worker, const Peer& peer) : worker_(worker), peer_(peer) { worker_.call_opened(*this); }
OwnCall::~OwnCall() = default;

void OwnCall::begin(const OwnRequest& to, TableHolder* table, std::string_view head, std::int64_t deadline_ms) {
  worker_.reactor().set_timer(*this, deadline_ms);
  exchange_ = worker_.take_exchange();
  exchange_->begin_own(*this, peer_, table, head, to.to_itself ? nullptr : to.target.get(), to.https);
}

void OwnCall::send_head(const ResponseHead& head, const HeaderList&, std::string_view first, bool) {
  answered_ = true;
  answered(head);
  read_over_ += first.size();
  worker_.reactor().later(*this);
}

void OwnCall::send_data(std::string_view data, bool, std::string_view) {
  read_over_ += data.size();
  if (read_over_ > kReadOver) worker_.reactor().later(*this);
}

void OwnCall::exchange_done() {
  exchange_ = nullptr;
  over_ = true;
  worker_.reactor().later(*this);
}

void OwnCall::on_timer() { end(); }

void OwnCall::end() {
  if (exchange_) exchange_->client_gone();
}

// Everything is told from here, so that no callback of an exchange ends another.
void OwnCall::on_later() {
  if ((answered_ || over_) && !std::exchange(told_, true)) settled();
  if (!over_ && read_over_ > kReadOver) end();
  if (!over_) return;
  worker_.reactor().forget(*this);
  worker_.call_closed(*this);
  worker_.reactor().bury(std::unique_ptr<Handler>(this));
}

AuthCall* AuthCall::ask(Worker& worker, Exchange& asker, const ExternalAuth& auth, const Peer& peer, TableHolder* table, std::string_view head, std::int64_t deadline_ms) {
  auto* call = new AuthCall(worker, asker, auth, peer);
  call->begin(auth.request, table, head, deadline_ms);
  return call;
}

void AuthCall::forget() {
  asker_ = nullptr;
  end();
}

void AuthCall::settled() {
  if (auto* asker = std::exchange(asker_, nullptr)) asker->on_verdict(std::move(verdict_));
}

MirrorCall* MirrorCall::start(Worker& worker, MirrorCall** owner, const OwnRequest& to, const Peer& peer, TableHolder* table, std::string_view head) {
  auto& counters = worker.count();
  if (worker.mirrors() >= kMostMirrors) {
    counters.mirrors_dropped.add();
    return nullptr;
  }
  counters.mirrors.add();
  auto* call = new MirrorCall(worker, peer, owner);
  *owner = call;
  call->begin(to, table, head, kMirrorMs);
  return *owner;
}

MirrorCall::MirrorCall(Worker& worker, const Peer& peer, MirrorCall** owner) : OwnCall(worker, peer), owner_(owner) { ++worker.mirrors(); }
MirrorCall::~MirrorCall() { --worker_.mirrors(); }

void MirrorCall::body(std::string_view data, bool end, std::string_view trailers) {
  if (exchange_ && !exchange_->request_complete()) exchange_->request_body(data, end, trailers);
}

void MirrorCall::leave(bool whole) {
  owner_ = nullptr;
  if (!exchange_) return;
  if (whole) worker_.reactor().set_timer(*this, kMirrorAnswerMs);
  else end();
}

void MirrorCall::pause_request() {
  worker_.count().mirrors_dropped.add();
  if (owner_) *std::exchange(owner_, nullptr) = nullptr;
  // From within a callback of the exchange: the deadline ends it.
  worker_.reactor().set_timer(*this, 1);
}

void MirrorCall::exchange_done() {
  if (owner_) *std::exchange(owner_, nullptr) = nullptr;
  OwnCall::exchange_done();
}

}  // namespace fairlead::ingress
