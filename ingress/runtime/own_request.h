// Requests that the router makes itself for one that it serves: the question to an authentication service, the copy to a mirror.
// Each is an exchange like any other (pools, timeouts, retries, balancing), whose client is an object here.
//
// Bounded: each has a deadline; of an answer's body little is read over before the connection is given up; mirrors at once are
// limited per worker, and one that does not keep up is dropped. Nothing here slows or fails the request it is for, but for the
// verdict of an authentication, whose every fault is a refusal. Owned by themselves; end through Reactor::bury. Thread: their
// worker's.
#pragma once

#include <string>
#include <string_view>

#include "ingress/core/external_auth.h"
#include "ingress/runtime/exchange.h"
#include "ingress/runtime/reactor.h"

namespace fairlead::ingress {

class OwnCall : public Handler, public Downstream {
 public:
  void end();             // the worker ends, or nobody wants to know any more
  std::size_t place = 0;  // in the worker's list

  void send_head(const ResponseHead& head, const HeaderList& added, std::string_view first, bool end) override;
  void send_data(std::string_view data, bool end, std::string_view trailers) override;
  void send_informational(const ResponseHead&) override {}
  void send_reply(const Reply&) override {}  // the router's own words: nobody has answered
  void start_tunnel(const ResponseHead&, const HeaderList&, std::string_view) override {}
  void abort_response() override {}
  void exchange_done() override;
  void pause_request() override {}
  void resume_request() override {}
  std::size_t backlog() const override { return 0; }

  void on_events(std::uint32_t) override {}
  void on_timer() override;
  void on_later() override;

 protected:
  OwnCall(Worker& worker, const Peer& peer);
  ~OwnCall() override;
  // `target` is null for a request to the router itself. `table` is that of the request this is for.
  void begin(const OwnRequest& to, TableHolder* table, std::string_view head, std::int64_t deadline_ms);
  virtual void answered(const ResponseHead&) {}
  virtual void settled() {}  // after answered(), or when no answer will come; once, from no callback of the exchange

  Worker& worker_;
  Peer peer_;
  Exchange* exchange_ = nullptr;

 private:
  std::size_t read_over_ = 0;
  bool answered_ = false, told_ = false, over_ = false;
};

class AuthCall final : public OwnCall {
 public:
  // Ends in a call of asker.on_verdict(), unless it is forgotten before.
  static AuthCall* ask(Worker& worker, Exchange& asker, const ExternalAuth& auth, const Peer& peer, TableHolder* table, std::string_view head, std::int64_t deadline_ms);
  void forget();

 private:
  AuthCall(Worker& worker, Exchange& asker, const ExternalAuth& auth, const Peer& peer) : OwnCall(worker, peer), asker_(&asker), auth_(&auth) {}
  void answered(const ResponseHead& head) override { verdict_ = judge(*auth_, head); }
  void settled() override;

  Exchange* asker_;
  const ExternalAuth* auth_;  // alive with the asker's table
  AuthVerdict verdict_;
};

class MirrorCall final : public OwnCall {
 public:
  // Null: there are too many.
  static MirrorCall* start(Worker& worker, MirrorCall** owner, const OwnRequest& to, const Peer& peer, TableHolder* table, std::string_view head);
  void body(std::string_view data, bool end, std::string_view trailers);
  void leave(bool whole);  // by the request it copies, which ends; one that has not been sent whole is cut off
  void pause_request() override;  // the mirror does not keep up

 private:
  MirrorCall(Worker& worker, const Peer& peer, MirrorCall** owner);
  ~MirrorCall() override;
  void settled() override {}
  void exchange_done() override;

  MirrorCall** owner_;
};

}  // namespace fairlead::ingress
