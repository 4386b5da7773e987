// SPDX-License-Identifier: Apache-2.0
// Idempotency: a POST repeated with the same Idempotency-Key is answered as before and not done again
// (draft-ietf-httpapi-idempotency-key-header). The answer to a change is committed with the change (answer_kept_with),
// so that a control that dies in between leaves both or neither; any other answer is on disk before it is sent.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "conf/state_store.h"
#include "control/auth.h"
#include "core/http_server.h"
#include "core/result.h"

namespace tidegate {

class HostState;

// A request that its client may send again.
struct OnceOnly {
  std::string request;  // a digest of whose key it is, of which path, and of the key
  std::string body_digest;
  // The digest by which earlier releases kept answers, under the name of who asks. Empty where others share that
  // name: theirs may be the answer.
  std::string earlier_request = {};
};
OnceOnly once_only(const Principal& who, const HttpRequest& request, std::string_view key);

KeptAnswer kept_answer(const OnceOnly& once, const HttpResponse& answer);

// What `tell` makes of the write is to be committed with it. Nothing for a request without a key.
template <class Written, class Tell>
AnswerTo<Written> answer_kept_with(const std::optional<OnceOnly>& once, Tell tell) {
  if (!once) return {};
  return [once = *once, tell = std::move(tell)](const Written& written) { return kept_answer(once, tell(written)); };
}

class Idempotency {
 public:
  explicit Idempotency(HostState& host_state) : host_state_(host_state) {}

  enum class Verdict : uint8_t {
    fresh,       // do it, then finish() or abandon()
    repeated,    // `answer` is the earlier one
    under_way,   // the first one has not been answered yet
    other_body,  // the key was used for something else
  };
  struct Lookup {
    Verdict verdict = Verdict::fresh;
    std::optional<HttpResponse> answer;
  };
  Result<Lookup> begin(const OnceOnly& once);
  void finish(const OnceOnly& once, const HttpResponse& answer);
  // It was not answered: a repetition is fresh again, or gets what was committed with the change.
  void abandon(const OnceOnly& once) { under_way_.erase(once.request); }

 private:
  HostState& host_state_;
  std::map<std::string, std::string> under_way_;  // the body's digest, by request
};

// An exchange that hands its answer to `posts` on the way out.
HttpExchangePtr remember_answer(HttpExchangePtr exchange, Idempotency& posts, OnceOnly once);

}  // namespace tidegate
