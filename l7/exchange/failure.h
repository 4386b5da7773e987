// SPDX-License-Identifier: Apache-2.0
// Failures: every way in which a request can end other than with the answer that it asked for. One table, failure.def,
// says of each: its name (access log and metric), the status and the sentence that the client gets, who is charged with
// it, whether it may be tried again, and what becomes of requests that share the fetch. Nothing else decides these.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate::l7 {

enum class Failure : uint8_t {
  none,
#define TIDEGATE_FAILURE(name, ...) name,
#include "l7/exchange/failure.def"
#undef TIDEGATE_FAILURE
  count_,
};
constexpr size_t kFailures = static_cast<size_t>(Failure::count_);

// Who is charged. Only a backend pays: with a failure in its metric, and with ejection after `eject_after` in a row.
enum class Blame : uint8_t {
  nobody,
  client,
  edge,          // this node: its limits, or its configuration
  backend,       // it did this
  slow_backend,  // it is charged if its answer was waited for during at least half of the time that is over
  // It is charged if it has answered nobody for `connect_timeout`. Else it is busy, and that is no failure.
  silent_backend,
};
constexpr const char* words(Blame blame) {
  switch (blame) {
    case Blame::nobody:
      return "nobody";
    case Blame::client:
      return "the client";
    case Blame::edge:
      return "this node";
    case Blame::backend:
      return "the backend";
    case Blame::slow_backend:
      return "the backend, if it was waited for during at least half of that time";
    case Blame::silent_backend:
      break;
  }
  return "the backend, if it has answered nobody for `connect_timeout`";
}

// Whether another try follows while `retry_attempts` and `retry_budget` allow it.
enum class Retry : uint8_t {
  never,
  unsent,   // nothing of the request was sent: any method, on another backend (or another address of the same one)
  sent,     // idempotent methods (RFC 9110 §9.2.2) whose body, if any, is buffered; on another backend; by the budget
  fresh,    // idempotent methods, once, on a new connection to any backend; costs nothing
  refused,  // the backend said that it did not begin: any method whose body is at hand, on any backend
  // When a backend has room again: any method of which nothing was sent. Of others that no kernel acknowledged a byte
  // of a request does not prove that nobody has read it, so idempotent methods as above. Costs nothing.
  unaccepted,
};
constexpr const char* words(Retry retry) {
  switch (retry) {
    case Retry::never:
      return "no";
    case Retry::unsent:
      return "any method, on another backend";
    case Retry::sent:
      return "idempotent methods without a body, or with a buffered one, on another backend";
    case Retry::fresh:
      return "idempotent methods without a body, or with a buffered one, on a new connection";
    case Retry::refused:
      return "any method whose body is at hand, on any backend";
    case Retry::unaccepted:
      break;
  }
  return "where a backend has room, if need be by the queue: any method before the request was sent, then idempotent "
         "methods without a body, or with a buffered one";
}

// What becomes of the requests that wait for the same fetch.
enum class Sharers : uint8_t {
  nobody_waits,   // it happens where none is shared
  next_one_asks,  // it is this request's own affair: the next one leads
  few_ask,        // the next one leads, a few times; then all fail
  fail_too,       // they fail with shared_fetch_failed, or get what is stale
};
constexpr const char* words(Sharers sharers) {
  switch (sharers) {
    case Sharers::nobody_waits:
      return "-";
    case Sharers::next_one_asks:
      return "the next one asks";
    case Sharers::few_ask:
      return "a few ask, then all fail";
    case Sharers::fail_too:
      break;
  }
  return "fail too, or get what is stale";
}

struct FailureInfo {
  const char* name;
  uint16_t status;  // 499: nobody is left to tell
  Blame blame;
  Retry retry;
  Sharers sharers;
  const char* sentence;
};
const FailureInfo& info(Failure failure);

}  // namespace tidegate::l7
