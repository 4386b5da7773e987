// SPDX-License-Identifier: Apache-2.0
// Failures: every way in which a request can end other than with the answer that it asked for. For each failure one
// table, failure.def, has its name (access log and metric), the status and the sentence for the client, who is charged
// with it, whether it may be tried again, and what happens to requests that share the fetch. Nothing else decides
// these: `Transaction` looks them up for requests, and `BackendCall` for what policies ask backends.
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

// Who is charged. Only a backend has consequences: a failure in its metric, and ejection after `eject_after` in a row.
enum class Blame : uint8_t {
  nobody,
  client,
  edge,          // this node: its limits, or its configuration
  backend,       // the backend caused it
  slow_backend,  // the backend is charged if the exchange waited for its answer during at least half of the time
  // The backend is charged if it has answered nobody for `connect_timeout`. Otherwise it is only busy, not failing.
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
  unsent,  // no byte of the request was sent: any method, on another backend (or another address of the same one)
  // idempotent methods (RFC 9110 §9.2.2) whose body, if any, is buffered; on another backend, within the budget
  sent,
  fresh,  // idempotent methods, once, on a new connection to any backend; outside of the budget
  // the backend said that it did not process the request: any method whose body is still there, on any backend
  refused,
  // when a backend has room again; outside of the budget. Any method if nothing of the request was sent. Otherwise only
  // idempotent methods as above, because bytes that no kernel has acknowledged may still have been read.
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

// What happens to the requests that wait for the same fetch.
enum class Sharers : uint8_t {
  nobody_waits,   // it happens where no fetch is shared
  next_one_asks,  // it concerns only this request: the next one leads
  few_ask,        // the next one leads, a few times; then all fail
  fail_too,       // they fail with shared_fetch_failed, or get a stale response
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
  uint16_t status;  // 499: there is no client to answer
  Blame blame;
  Retry retry;
  Sharers sharers;
  const char* sentence;
};
const FailureInfo& info(Failure failure);

}  // namespace tidegate::l7
