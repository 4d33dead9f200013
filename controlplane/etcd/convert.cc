#include "controlplane/etcd/convert.h"

#include <algorithm>

#include "controlplane/etcd/errors.h"

namespace fairlead::etcd::convert {
namespace pb = etcdserverpb;

Result<RangeRequest> from_proto(const pb::RangeRequest& m) {
  if (!pb::RangeRequest::SortOrder_IsValid(m.sort_order()) || !pb::RangeRequest::SortTarget_IsValid(m.sort_target()))
    return fail(errors::make(ErrorCode::invalid_argument, "invalid sort option"));
  RangeRequest r;
  r.key = m.key();
  r.range_end = m.range_end();
  r.limit = m.limit();
  r.revision = m.revision();
  r.order = static_cast<RangeRequest::Order>(m.sort_order());
  r.target = static_cast<RangeRequest::Target>(m.sort_target());
  r.serializable = m.serializable();
  r.keys_only = m.keys_only();
  r.count_only = m.count_only();
  r.min_mod_revision = m.min_mod_revision();
  r.max_mod_revision = m.max_mod_revision();
  r.min_create_revision = m.min_create_revision();
  r.max_create_revision = m.max_create_revision();
  return r;
}

PutRequest from_proto(pb::PutRequest&& m) {
  return {std::move(*m.mutable_key()), std::move(*m.mutable_value()), m.lease(), m.prev_kv(), m.ignore_value(), m.ignore_lease()};
}

DeleteRangeRequest from_proto(const pb::DeleteRangeRequest& m) { return {m.key(), m.range_end(), m.prev_kv()}; }

namespace {

Compare from_proto(pb::Compare&& m) {
  Compare c;
  c.result = static_cast<Compare::Result>(m.result());
  c.target = static_cast<Compare::Target>(m.target());
  c.key = std::move(*m.mutable_key());
  c.range_end = std::move(*m.mutable_range_end());
  switch (c.target) {
    case Compare::Target::version: c.number = m.version(); break;
    case Compare::Target::create: c.number = m.create_revision(); break;
    case Compare::Target::mod: c.number = m.mod_revision(); break;
    case Compare::Target::lease: c.number = m.lease(); break;
    case Compare::Target::value: c.value = std::move(*m.mutable_value()); break;
  }
  return c;
}

Result<RequestOp> from_proto(pb::RequestOp&& m) {
  switch (m.request_case()) {
    case pb::RequestOp::kRequestRange: {
      FL_TRY(auto r, convert::from_proto(m.request_range()));
      return RequestOp(std::move(r));
    }
    case pb::RequestOp::kRequestPut: return RequestOp(convert::from_proto(std::move(*m.mutable_request_put())));
    case pb::RequestOp::kRequestDeleteRange: return RequestOp(convert::from_proto(m.request_delete_range()));
    case pb::RequestOp::kRequestTxn: {
      FL_TRY(auto t, convert::from_proto(std::move(*m.mutable_request_txn())));
      return RequestOp(std::make_shared<TxnRequest>(std::move(t)));
    }
    case pb::RequestOp::REQUEST_NOT_SET: break;
  }
  return fail(errors::key_not_found());  // as etcd: an empty operation
}

}  // namespace

Result<TxnRequest> from_proto(pb::TxnRequest&& m) {
  TxnRequest t;
  for (auto& c : *m.mutable_compare()) {
    if (!pb::Compare::CompareResult_IsValid(c.result()) || !pb::Compare::CompareTarget_IsValid(c.target()))
      return fail(ErrorCode::invalid_argument, "etcdserver: invalid compare");
    t.compare.push_back(from_proto(std::move(c)));
  }
  for (auto& op : *m.mutable_success()) {
    FL_TRY(auto o, from_proto(std::move(op)));
    t.success.push_back(std::move(o));
  }
  for (auto& op : *m.mutable_failure()) {
    FL_TRY(auto o, from_proto(std::move(op)));
    t.failure.push_back(std::move(o));
  }
  return t;
}

WatchRequest from_proto(const pb::WatchCreateRequest& m) {
  WatchRequest r;
  r.key = m.key();
  r.range_end = m.range_end();
  r.start_revision = m.start_revision();
  r.prev_kv = m.prev_kv();
  r.progress_notify = m.progress_notify();
  for (const auto f : m.filters()) (f == pb::WatchCreateRequest::NOPUT ? r.filter_put : r.filter_delete) = true;
  return r;
}

void to_proto(KeyValue&& kv, mvccpb::KeyValue& m) {
  m.set_key(std::move(kv.key));
  m.set_create_revision(kv.create_revision);
  m.set_mod_revision(kv.mod_revision);
  m.set_version(kv.version);
  m.set_value(std::move(kv.value));
  m.set_lease(kv.lease);
}

void to_proto(RangeResponse&& r, pb::RangeResponse& m) {
  m.mutable_header()->set_revision(r.revision);
  m.mutable_kvs()->Reserve(static_cast<int>(r.kvs.size()));
  for (auto& kv : r.kvs) to_proto(std::move(kv), *m.add_kvs());
  m.set_more(r.more);
  m.set_count(r.count);
}
void to_proto(PutResponse&& r, pb::PutResponse& m) {
  m.mutable_header()->set_revision(r.revision);
  if (r.prev_kv) to_proto(std::move(*r.prev_kv), *m.mutable_prev_kv());
}
void to_proto(DeleteRangeResponse&& r, pb::DeleteRangeResponse& m) {
  m.mutable_header()->set_revision(r.revision);
  m.set_deleted(r.deleted);
  for (auto& kv : r.prev_kvs) to_proto(std::move(kv), *m.add_prev_kvs());
}
void to_proto(TxnResponse&& r, pb::TxnResponse& m) {
  m.mutable_header()->set_revision(r.revision);
  m.set_succeeded(r.succeeded);
  for (auto& op : r.responses) {
    auto& out = *m.add_responses();
    if (auto* g = std::get_if<RangeResponse>(&op)) to_proto(std::move(*g), *out.mutable_response_range());
    else if (auto* p = std::get_if<PutResponse>(&op)) to_proto(std::move(*p), *out.mutable_response_put());
    else if (auto* d = std::get_if<DeleteRangeResponse>(&op)) to_proto(std::move(*d), *out.mutable_response_delete_range());
    else to_proto(std::move(*std::get<std::shared_ptr<TxnResponse>>(op)), *out.mutable_response_txn());
  }
}
void to_proto(Event&& e, mvccpb::Event& m) {
  m.set_type(e.type == Event::Type::put ? mvccpb::Event::PUT : mvccpb::Event::DELETE);
  to_proto(std::move(e.kv), *m.mutable_kv());
  if (e.prev_kv) to_proto(std::move(*e.prev_kv), *m.mutable_prev_kv());
}

pb::RangeRequest to_message(const RangeRequest& r) {
  pb::RangeRequest m;
  m.set_key(r.key);
  m.set_range_end(r.range_end);
  m.set_limit(r.limit);
  m.set_revision(r.revision);
  m.set_sort_order(static_cast<pb::RangeRequest::SortOrder>(r.order));
  m.set_sort_target(static_cast<pb::RangeRequest::SortTarget>(r.target));
  m.set_serializable(r.serializable);
  m.set_keys_only(r.keys_only);
  m.set_count_only(r.count_only);
  m.set_min_mod_revision(r.min_mod_revision);
  m.set_max_mod_revision(r.max_mod_revision);
  m.set_min_create_revision(r.min_create_revision);
  m.set_max_create_revision(r.max_create_revision);
  return m;
}
pb::PutRequest to_message(PutRequest&& r) {
  pb::PutRequest m;
  m.set_key(std::move(r.key));
  m.set_value(std::move(r.value));
  m.set_lease(r.lease);
  m.set_prev_kv(r.prev_kv);
  m.set_ignore_value(r.ignore_value);
  m.set_ignore_lease(r.ignore_lease);
  return m;
}
pb::DeleteRangeRequest to_message(const DeleteRangeRequest& r) {
  pb::DeleteRangeRequest m;
  m.set_key(r.key);
  m.set_range_end(r.range_end);
  m.set_prev_kv(r.prev_kv);
  return m;
}
pb::TxnRequest to_message(TxnRequest&& r) {
  pb::TxnRequest m;
  for (auto& c : r.compare) {
    auto& out = *m.add_compare();
    out.set_result(static_cast<pb::Compare::CompareResult>(c.result));
    out.set_target(static_cast<pb::Compare::CompareTarget>(c.target));
    out.set_key(std::move(c.key));
    out.set_range_end(std::move(c.range_end));
    switch (c.target) {
      case Compare::Target::version: out.set_version(c.number); break;
      case Compare::Target::create: out.set_create_revision(c.number); break;
      case Compare::Target::mod: out.set_mod_revision(c.number); break;
      case Compare::Target::lease: out.set_lease(c.number); break;
      case Compare::Target::value: out.set_value(std::move(c.value)); break;
    }
  }
  const auto add = [](std::vector<RequestOp>& ops, auto* list) {
    for (auto& op : ops) {
      auto& out = *list->Add();
      if (auto* g = std::get_if<RangeRequest>(&op)) *out.mutable_request_range() = to_message(*g);
      else if (auto* p = std::get_if<PutRequest>(&op)) *out.mutable_request_put() = to_message(std::move(*p));
      else if (auto* d = std::get_if<DeleteRangeRequest>(&op)) *out.mutable_request_delete_range() = to_message(*d);
      else *out.mutable_request_txn() = to_message(TxnRequest(*std::get<std::shared_ptr<TxnRequest>>(op)));
    }
  };
  add(r.success, m.mutable_success());
  add(r.failure, m.mutable_failure());
  return m;
}
pb::WatchCreateRequest to_message(const WatchRequest& r) {
  pb::WatchCreateRequest m;
  m.set_key(r.key);
  m.set_range_end(r.range_end);
  m.set_start_revision(r.start_revision);
  m.set_prev_kv(r.prev_kv);
  m.set_progress_notify(r.progress_notify);
  if (r.filter_put) m.add_filters(pb::WatchCreateRequest::NOPUT);
  if (r.filter_delete) m.add_filters(pb::WatchCreateRequest::NODELETE);
  return m;
}

KeyValue to_value(mvccpb::KeyValue&& m) {
  return {std::move(*m.mutable_key()), m.create_revision(), m.mod_revision(), m.version(), std::move(*m.mutable_value()), m.lease()};
}
RangeResponse to_value(pb::RangeResponse&& m) {
  RangeResponse r;
  r.revision = m.header().revision();
  r.more = m.more();
  r.count = m.count();
  r.kvs.reserve(static_cast<std::size_t>(m.kvs_size()));
  for (auto& kv : *m.mutable_kvs()) r.kvs.push_back(to_value(std::move(kv)));
  return r;
}
PutResponse to_value(pb::PutResponse&& m) {
  PutResponse r;
  r.revision = m.header().revision();
  if (m.has_prev_kv()) r.prev_kv = to_value(std::move(*m.mutable_prev_kv()));
  return r;
}
DeleteRangeResponse to_value(pb::DeleteRangeResponse&& m) {
  DeleteRangeResponse r;
  r.revision = m.header().revision();
  r.deleted = m.deleted();
  for (auto& kv : *m.mutable_prev_kvs()) r.prev_kvs.push_back(to_value(std::move(kv)));
  return r;
}
TxnResponse to_value(pb::TxnResponse&& m) {
  TxnResponse r;
  r.revision = m.header().revision();
  r.succeeded = m.succeeded();
  for (auto& op : *m.mutable_responses()) switch (op.response_case()) {
      case pb::ResponseOp::kResponseRange: r.responses.emplace_back(to_value(std::move(*op.mutable_response_range()))); break;
      case pb::ResponseOp::kResponsePut: r.responses.emplace_back(to_value(std::move(*op.mutable_response_put()))); break;
      case pb::ResponseOp::kResponseDeleteRange: r.responses.emplace_back(to_value(std::move(*op.mutable_response_delete_range()))); break;
      case pb::ResponseOp::kResponseTxn: r.responses.emplace_back(std::make_shared<TxnResponse>(to_value(std::move(*op.mutable_response_txn())))); break;
      case pb::ResponseOp::RESPONSE_NOT_SET: break;
    }
  return r;
}
Event to_value(mvccpb::Event&& m) {
  Event e;
  e.type = m.type() == mvccpb::Event::PUT ? Event::Type::put : Event::Type::del;
  e.kv = to_value(std::move(*m.mutable_kv()));
  if (m.has_prev_kv()) e.prev_kv = to_value(std::move(*m.mutable_prev_kv()));
  return e;
}

}  // namespace fairlead::etcd::convert
