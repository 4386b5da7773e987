// SPDX-License-Identifier: Apache-2.0
// Idempotency: a POST that is repeated with the same Idempotency-Key gets the same answer and is not executed again
// (draft-ietf-httpapi-idempotency-key-header). The answer to a change is committed with the change (answer_kept_with).
// So if control dies in between, both exist or neither does. Any other answer is on the disk before it is sent.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "conf/state_store.h"
#include "control/api/auth.h"
#include "core/http_server.h"
#include "core/result.h"

namespace tidegate {

class HostState;

// A request that its client may send again.
struct OnceOnly {
  std::string request;  // a digest of the owner, the path and the key
  std::string body_digest;
  // The digest of earlier releases, which used the owner's name. It is empty if others share that name, because the
  // answer may belong to them.
  std::string earlier_request = {};
};
OnceOnly once_only(const Principal& who, const HttpRequest& request, std::string_view key);

KeptAnswer kept_answer(const OnceOnly& once, const HttpResponse& answer);

// Returns a function for the commit: it stores the answer that `answer_to` makes from the write. Empty for a request
// without a key.
template <class Written, class Tell>
AnswerTo<Written> answer_kept_with(const std::optional<OnceOnly>& once, Tell answer_to) {
  if (!once) return {};
  return [once = *once, answer_to = std::move(answer_to)](const Written& written) {
    return kept_answer(once, answer_to(written));
  };
}

class Idempotency {
 public:
  explicit Idempotency(HostState& host_state) : host_state_(host_state) {}

  enum class Verdict : uint8_t {
    fresh,       // execute it, then call finish() or abandon()
    repeated,    // `answer` is the earlier answer
    under_way,   // the first request has not been answered yet
    other_body,  // the key was used for another request
  };
  struct Lookup {
    Verdict verdict = Verdict::fresh;
    std::optional<HttpResponse> answer;
  };
  Result<Lookup> begin(const OnceOnly& once);
  // `kept` is called when the answer is on the disk (and decided), or could not be stored.
  void finish(const OnceOnly& once, const HttpResponse& answer, std::function<void()> kept);
  // The request was not answered. A repetition is executed, or gets the answer that was committed with the change.
  void abandon(const OnceOnly& once) { under_way_.erase(once.request); }

 private:
  HostState& host_state_;
  std::map<std::string, std::string> under_way_;  // the body's digest, by request
};

// Returns an exchange that stores its answer in `posts` before it sends it.
HttpExchangePtr remember_answer(HttpExchangePtr exchange, Idempotency& posts, OnceOnly once);

}  // namespace tidegate
