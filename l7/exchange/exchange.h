// SPDX-License-Identifier: Apache-2.0
// Exchange: the data of one request on its way through the proxy, from its head to its line in the log. It has no
// behaviour: Transaction runs the steps that read and write it. A fresh value is the state before a request.
//
// A background revalidation is an exchange without a client: it has the facts of the client whose request it repeats,
// and `client_gone` from its beginning.
//
// Ownership: its Transaction. Views borrow the transaction's arena, the pinned plan, or the backend's buffer (response
// fields, until the response's head is accepted).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cache/cache.h"
#include "l7/exchange/client_stream.h"
#include "l7/exchange/failure.h"
#include "l7/exchange/patience.h"
#include "l7/observe/request_records.h"
#include "l7/plan.h"
#include "l7/policy/encoder.h"
#include "l7/policy/policy.h"
#include "l7/route/router.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

namespace policy {
class JsonChange;                // json_change.h
enum class JsonFault : uint8_t;  // json_change.h
}  // namespace policy

// The tries of backends.
struct Attempts {
  const PoolMember* member = nullptr;  // of the present try; counted as in flight while set
  Breaker::Permit permit;              // of its breaker, until its result is known
  std::string_view backend_name;       // of the last try, for the log
  uint32_t backend_name_id = 0;        // likewise, for the record
  ChosenBy chosen_by = ChosenBy::nobody;
  uint8_t recorded_tries = 0;  // the first so many, of those that failed and were followed by another one
  struct FailedTry {
    uint32_t backend_name_id;
    Failure failure;
  };
  std::array<FailedTry, kRecordedTries> failed_tries;
  uint32_t count = 0;
  Failure last_failure = Failure::none;  // of the try before this one
  std::array<uint32_t, 17> failed;       // the first failed_count: BackendRuntime::id; retry_attempts is at most 16
  size_t failed_count = 0;
  uint32_t not_accepted = 0;       // tries that a backend's kernel did not take; `count` is without them
  uint32_t ordinal = 0;            // connections to the present backend when the try began, its own included
  size_t resent_bytes = 0;         // of the kept part of the request's body, to the present backend
  bool request_sent = false;       // whole, towards the present backend
  bool fresh_only = false;         // a kept connection failed this request once
  bool told_not_accepted = false;  // of the present try: note_not_accepted() was called
  bool failed_by_status = false;   // the answer's status counts as a failure of the backend
};

// What the cache has to do with it.
struct CacheUse {
  std::optional<cache::Lookup> found;  // brought by the cache, not yet looked at
  cache::Pending pending;
  cache::Fill fill;                     // while leading
  std::optional<cache::Answer> stored;  // what is served from the cache
  cache::CacheStatus status;
  cache::Outcome outcome = cache::Outcome::bypass;
  bool asked = false;
  bool fill_paused = false;   // the cache is behind
  bool stored_ended = false;  // all of `stored` was handed to the client
};

// The content coding of the answer, while its head is made and its content is sent.
struct CodingUse {
  bool offered = false;                    // the answer is a backend's or the cache's, so a policy may choose a coding
  bool room = false;                       // an encoder can be had
  std::optional<uint64_t> length;          // of the content as it comes, where that is known
  Coding chosen = Coding::identity;        // by the policy; the head says so
  policy::CodingCounts* counts = nullptr;  // of that policy, in the pinned plan
  bool store = false;                      // that policy lets the cache keep what is compressed
  bool stored = false;                     // the content comes from the cache, compressed already
  std::unique_ptr<std::string> kept;       // what was compressed so far, for the cache; null: not wanted
  EncoderPool::Lease encoder;              // from the head to the end, if there is content
  bool unflushed = false;                  // the encoder may hold bytes back
};

// Moments in ns, monotonic. 0: not yet.
struct Timing {
  uint64_t started_ns = 0;
  uint64_t step_deadline_ns = UINT64_MAX;
  uint64_t head_deadline_ns = UINT64_MAX;      // the route's total_timeout; none once the backend has answered
  uint64_t exchange_deadline_ns = UINT64_MAX;  // the listener's request_timeout: for the whole exchange
  uint64_t call_deadline_ns = UINT64_MAX;      // grpc-timeout, or a policy's deadline: the client's own
  uint64_t policies_since_ns = 0;
  uint64_t policies_ns = 0;          // how long policies have held it, in all
  uint64_t connecting_since_ns = 0;  // the last try
  uint64_t tcp_connected_ns = 0;     // of that try; 0: the connection was there before
  uint64_t connected_ns = 0;
  uint64_t first_byte_ns = 0;
  uint64_t sent_ns = 0;  // since when the backend is waited for: connected to, or given more of the request
  uint64_t queued_since_ns = 0;
  uint64_t queued_ns = 0;        // how long it has waited in all
  uint64_t patience_end_ns = 0;  // while the deliver step waits for both sides
};

// How it ended.
struct Outcome {
  uint16_t status = 0;
  Failure failure = Failure::none;
  Failure gone_why = Failure::client_gone;
  uint64_t request_bytes = 0, response_bytes = 0;  // of bodies
  std::string_view request_line;                   // of a request that was refused, for the log
};

struct Exchange {
  Exchange() {}  // not defaulted: that would write all the room of the field lists

  PlanPin plan;
  RequestHead request;
  ResponseHead response;
  ClientFacts facts;
  RouteParameters parameters;
  const Route* route = nullptr;
  uint32_t route_index = kNone;  // of Model::routes
  uint32_t route_number = 0;     // of NameIds
  const BackendPool* pool = nullptr;
  PolicyUse policies;
  const policy::DeadlineTerms* deadline = nullptr;    // of the pinned plan: the field that tells backends what is left
  const policy::Chain* forwarding = nullptr;          // whose rules change what the backend gets; null: none does
  RequestHead* outgoing = nullptr;                    // what the backend gets instead of `request`; null: that
  std::string_view outgoing_host;                     // what it is asked for instead of the client's; empty: that
  const policy::JsonChange* request_json = nullptr;   // of the pinned plan: what is done to the request's body
  const policy::JsonChange* response_json = nullptr;  // and to the answer's
  uint32_t split_pool = kNone;                        // instead of the route's, as a policy has decided
  std::string_view variant;                           // of that policy, for the log
  uint32_t variant_number = 0;                        // the same, of NameIds; 0: none
  std::string_view branch;                            // "POLICY/VARIANT": tells the cache whose answers these are
  const policy::MirrorTerms* mirror_terms = nullptr;  // of the pinned plan: a copy is sent when a backend is asked
  std::shared_ptr<policy::MirrorPair> mirror;         // that this request shares with its copy
  std::string_view request_id;
  RequestKey request_key{};  // of an id that this process made; else zero
  std::string_view client_address;
  IpAddress named_client;        // the same, where a trusted proxy named another address than the peer's; else 0.0.0.0
  std::string_view answer_body;  // of an answer of our own
  std::span<const Field> logged_fields;  // of the answer, for the template of the access log; in the arena
  Attempts attempts;
  CacheUse cache;
  CodingUse coding;
  Timing timing;
  Outcome outcome;
  Trailers answer_trailers;   // of a buffered answer
  Patience patience;          // with the client, while its body is waited for
  bool client_gone = false;   // it left, or there never was one
  bool background = false;    // revalidates for the cache, or is a copy
  bool mirrored = false;      // it is the copy of a request
  bool head_sent = false;     // of the answer, to the client
  bool body_at_hand = false;  // the request's body is buffered, all of it
  bool tunnel = false;        // the answer's head has opened one
  bool grpc = false;          // failures are told as grpc-status
};

}  // namespace tidegate::l7
