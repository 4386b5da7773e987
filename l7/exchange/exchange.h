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
#include "conf/model/route.h"
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

// The tries to reach a backend.
struct Attempts {
  const PoolMember* member = nullptr;  // member of the present try; it counts as in flight while this is set
  Breaker::Permit permit;              // permit of its breaker, until the result is known
  std::string_view backend_name;       // backend of the last try, for the log
  uint32_t backend_name_id = 0;        // its number in NameIds, for the record
  ChosenBy chosen_by = ChosenBy::nobody;
  uint8_t recorded_tries = 0;  // how many failed tries were recorded that another try followed
  struct FailedTry {
    uint32_t backend_name_id;
    Failure failure;
  };
  std::array<FailedTry, kRecordedTries> failed_tries;
  uint32_t count = 0;
  // Failure of the previous try. `none` also if its answer had one of the route's `retry_statuses`.
  Failure last_failure = Failure::none;
  // BackendRuntime::id; the first failed_count are set; retry_attempts is at most 16
  std::array<uint32_t, 17> failed;
  size_t failed_count = 0;
  uint32_t not_accepted = 0;       // tries that a backend's kernel did not accept; `count` does not include them
  uint32_t ordinal = 0;            // connections to the present backend when the try began, including its own
  size_t resent_bytes = 0;         // bytes of the kept part of the request's body that were sent to the present backend
  bool request_sent = false;       // the whole request was sent to the present backend
  bool fresh_only = false;         // a kept connection failed this request once
  bool told_not_accepted = false;  // note_not_accepted() was called in the present try
  bool past_accepted = false;      // the queue had no place: waits in the backend's kernel instead
  bool failed_by_status = false;   // the answer's status counts as a failure of the backend
};

// How the exchange uses the cache.
struct CacheUse : CacheAnswer {
  std::optional<cache::Lookup> found;  // a result of the cache that was not handled yet
  cache::Pending pending;
  cache::Fill fill;                     // set while this exchange leads the fetch
  std::optional<cache::Answer> stored;  // the answer that is served from the cache
  cache::CacheStatus status;
  bool fill_paused = false;   // the cache has asked for a pause
  bool stored_ended = false;  // all of `stored` was given to the client
};

// The content coding of the answer, while its head is made and its content is sent.
struct CodingUse {
  bool offered = false;                    // the answer is from a backend or the cache, so a policy may choose a coding
  bool room = false;                       // an encoder is available
  std::optional<uint64_t> length;          // length of the content before coding, if it is known
  Coding chosen = Coding::identity;        // chosen by the policy; the head says so
  policy::CodingCounts* counts = nullptr;  // counters of that policy, in the pinned plan
  bool store = false;                      // that policy lets the cache keep the compressed form
  bool stored = false;                     // the content comes from the cache in compressed form
  std::unique_ptr<std::string> kept;       // the compressed content so far, for the cache; null: not wanted
  EncoderPool::Lease encoder;              // held from the head to the end, if there is content
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
  uint64_t policies_ns = 0;          // how long policies have held the request, in total
  uint64_t connecting_since_ns = 0;  // beginning of the last try
  uint64_t tcp_connected_ns = 0;     // of that try; 0: the connection existed before
  uint64_t connected_ns = 0;
  uint64_t first_byte_ns = 0;
  // since when the exchange waits for the backend: since it connected, or sent more of the request
  uint64_t sent_ns = 0;
  uint64_t queued_since_ns = 0;
  uint64_t queued_ns = 0;        // how long it has waited in total
  uint64_t patience_end_ns = 0;  // set while the deliver step waits for both sides
};

// The end of the exchange.
struct ExchangeOutcome : RequestEnd {
  uint64_t request_bytes = 0, response_bytes = 0;  // bytes of bodies
  std::string_view request_line;                   // of a refused request, for the log
};

struct Exchange : RequestClient {
  Exchange() {}  // not defaulted, because that would write the whole array of the field lists

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
  const policy::Chain* forwarding = nullptr;          // its rules change the backend's request; null: no rule does
  RequestHead* outgoing = nullptr;                    // the backend's request if rules changed it; null: `request`
  std::string_view outgoing_host;                     // the host for the backend; empty: the client's host
  const policy::JsonChange* request_json = nullptr;   // of the pinned plan: the change of the request's body
  const policy::JsonChange* response_json = nullptr;  // and of the answer's body
  uint32_t split_pool = kNone;                        // the pool that a policy chose; kNone: the route's
  std::string_view variant;                           // of that policy, for the log
  uint32_t variant_number = 0;                        // the same, of NameIds; 0: none
  std::string_view branch;                            // "POLICY/VARIANT": the branch for the cache
  const policy::MirrorTerms* mirror_terms = nullptr;  // of the pinned plan: a copy is sent when a backend is asked
  std::shared_ptr<policy::MirrorPair> mirror;         // shared by this request and its copy
  std::string_view request_id;
  RequestKey request_key{};  // key of an id that this process made; otherwise zero
  std::string_view client_address;
  // the client's address, if a trusted proxy named another one than the peer's; otherwise 0.0.0.0
  IpAddress named_client;
  std::string_view answer_body;          // body of an answer of our own
  std::span<const Field> logged_fields;  // fields of the answer for the template of the access log; in the arena
  Attempts attempts;
  CacheUse cache;
  CodingUse coding;
  Timing timing;
  ExchangeOutcome outcome;
  Trailers answer_trailers;   // trailers of a buffered answer
  Patience patience;          // for the client, while the exchange waits for its body
  bool mirrored = false;      // the exchange is the copy of a request
  bool head_sent = false;     // the head of the answer was sent to the client
  bool body_at_hand = false;  // the whole body of the request is buffered
  bool tunnel = false;        // the answer's head has opened a tunnel
  bool grpc = false;          // failures are reported as grpc-status

  // Policies of a listener may call a backend for a request that no route takes.
  QueuePriority queue_priority() const { return route == nullptr ? QueuePriority::normal : route->queue_priority; }
};

}  // namespace tidegate::l7
