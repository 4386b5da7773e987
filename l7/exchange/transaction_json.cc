// SPDX-License-Identifier: Apache-2.0
// JSON bodies that a transform changes. The whole body is collected first: a request's by the step `buffer`, an
// answer's by `gather`. Both are in a BodyBuffer, which the worker's budget bounds. The old and the new text exist only
// during the change.
#include <algorithm>
#include <string>

#include "conf/policy/compress.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/policy/json_change.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

std::string whole_body(const BodyBuffer& buffer) {
  std::string body;
  body.reserve(buffer.bytes());
  for (std::string_view piece; !(piece = buffer.piece_at(body.size())).empty();) body += piece;
  return body;
}

// Digests are of the original bytes (RFC 9530).
void remove_digests(FieldList& fields) {
  for (const std::string_view name : {"content-digest", "repr-digest", "digest", "content-md5"}) {
    fields.remove_named(name);
  }
}

// Fields that describe the backend's bytes of an answer. Changed bytes get a weak ETag (RFC 9110 §8.8.3), because they
// also depend on the document's version, which the backend does not know.
void describe_changed(FieldList& fields, Arena& arena) {
  remove_digests(fields);
  fields.remove_named("accept-ranges");
  const Field* const etag = fields.find("etag");
  if (etag == nullptr || !etag->value.starts_with('"')) return;
  char* const weak = arena.allocate(etag->value.size() + 2);
  std::copy(etag->value.begin(), etag->value.end(), std::copy_n("W/", 2, weak));
  const std::string_view text(weak, etag->value.size() + 2);
  fields.remove_named("etag");
  fields.add_own("ETag", "etag", text, FieldKind::other);
}

void set_new_content_type(FieldList& fields, std::string_view type) {
  if (type.empty()) return;
  fields.remove_named("content-type");
  fields.add_own("Content-Type", "content-type", type, FieldKind::other);
}

bool may_have_content(uint32_t status) { return status != 204 && status != 205 && status != 304; }

bool is_for(const policy::JsonChange& change, const FieldList& fields) {
  const Field* const type = fields.find("content-type");
  return type != nullptr && change.takes(type->value);
}

}  // namespace

bool is_json(const FieldList& fields) {
  const Field* const type = fields.find("content-type");
  return type != nullptr &&
         (takes_type("application/json", type->value) || takes_type("application/*+json", type->value));
}

bool has_content_coding(const FieldList& fields) {
  const Field* const coding = fields.find("content-encoding");
  return coding != nullptr && !http1::equals_ignore_case(coding->value, "identity");
}

// The request's body is complete, and the first backend is about to be asked.
Failure Transaction::change_request_json() {
  std::string changed;
  const policy::JsonFault fault =
      exchange_.request_json->change(whole_body(request_buffer_), policy::values_of(exchange_), changed, arena_);
  if (fault != policy::JsonFault::none) {
    failure_detail_ = name(fault);
    return fault == policy::JsonFault::body_too_large ? Failure::body_too_large : Failure::not_transformable;
  }
  request_buffer_.clear();
  request_buffer_.append(changed);
  remove_digests(exchange_.outgoing->fields);
  set_new_content_type(exchange_.outgoing->fields, exchange_.request_json->new_content_type());
  RequestHead& outgoing = *exchange_.outgoing;
  exchange_.body_at_hand = true;
  if (outgoing.body == BodyKind::unknown) return Failure::none;  // trailers follow
  outgoing.body = changed.empty() ? BodyKind::none : BodyKind::known;
  outgoing.content_length = changed.size();
  return Failure::none;
}

// The answer's head is there. Returns nothing if its body must be passed on unchanged.
std::optional<Step> Transaction::begin_gather() {
  ResponseHead& response = exchange_.response;
  if (response.body == BodyKind::tunnel ||
      (response.status != 304 && !is_for(*exchange_.response_json, response.fields)))
    return std::nullopt;
  const policy::JsonChange& change = *exchange_.response_json;
  const bool empty_content = response.body == BodyKind::none && !exchange_.request.is_head() &&
                             may_have_content(response.status) && change.takes_empty();
  if (response.body == BodyKind::none && !empty_content) {
    describe_changed(response.fields, arena_);
    if (response.status != 304) set_new_content_type(response.fields, exchange_.response_json->new_content_type());
    // The length is that of the unchanged body, so it is wrong for the new one.
    if (exchange_.request.is_head()) response.has_content_length = false;
    return std::nullopt;
  }
  if (has_content_coding(response.fields)) return fail_json(policy::JsonFault::body_coded);
  if (response.status == 206) return fail_json(policy::JsonFault::body_cut);
  if (response.has_content_length && response.content_length > exchange_.response_json->most()) {
    return fail_json(policy::JsonFault::body_too_large);
  }
  FieldList fields;  // they are needed after the backend's buffer holds the body
  for (const Field& field : response.fields) {
    fields.add({arena_.copy(field.name), arena_.copy(field.value), field.kind, field.odd_name,
                field.spelt.empty() ? field.spelt : arena_.copy(field.spelt)});
  }
  response.fields = fields;
  response.reason = arena_.copy(response.reason);
  backend_->accept_head();
  wait_at_most_ns(silence_ns());
  return Step::gather;
}

Step Transaction::fail_json(policy::JsonFault fault) {
  release_backend(false);
  failure_detail_ = name(fault);
  const Step step = fail(Failure::bad_response);
  if (!exchange_.grpc) exchange_.answer_body = "The backend's answer cannot be given in the form of this resource.";
  return step;
}

// Collects the answer's body, until it is complete.
Step Transaction::gather() {
  if (exchange_.client_gone) return fail(Failure::client_gone);
  const bool request_moved = pump_request();
  bool moved = false;
  for (int pieces = 0;; ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      break;
    }
    const std::string_view piece = backend_->next_piece();
    if (piece.empty()) break;
    moved = true;
    if (!response_buffer_.has_room(exchange_.response_json->most())) {
      return fail_json(policy::JsonFault::body_too_large);
    }
    response_buffer_.append(piece);
  }
  if (backend_->response_ended()) return end_gather();
  if (backend_->failure() != Failure::none) return fail(backend_->failure());
  if (const Failure failure = request_body_failure(); failure != Failure::none) return fail(failure);
  if (moved || request_moved) {
    wait_at_most_ns(silence_ns());
  } else if (expired()) {
    const Failure over = own_time_over();
    return fail(over != Failure::none ? over : Failure::body_timeout);
  }
  return Step::suspend;
}

Step Transaction::end_gather() {
  std::string changed;
  const policy::JsonFault fault =
      exchange_.response_json->change(whole_body(response_buffer_), policy::values_of(exchange_), changed, arena_);
  if (fault != policy::JsonFault::none) return fail_json(fault);
  response_buffer_.clear();
  response_buffer_.append(changed);
  describe_changed(exchange_.response.fields, arena_);
  set_new_content_type(exchange_.response.fields, exchange_.response_json->new_content_type());
  offer_content(changed.empty() ? BodyKind::none : BodyKind::known, changed.size());
  compose_answer_fields();
  const BodyKind kind = changed.empty() ? BodyKind::none : BodyKind::known;
  send_answer_head(exchange_.response.reason, kind, changed.size(), true);
  release_backend(true);
  return Step::rest;
}

}  // namespace tidegate::l7
