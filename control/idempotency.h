// Idempotency: a POST repeated with the same Idempotency-Key is answered as before and not done again
// (draft-ietf-httpapi-idempotency-key-header). In memory and bounded: it covers a client's retries, not a restart.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/http_server.h"

namespace tidegate {

class IdempotencyCache {
 public:
  static constexpr size_t kMaxKept = 1024;
  static constexpr size_t kMaxKeyBytes = 255;

  enum class Verdict : uint8_t {
    fresh,       // do it, then keep() the answer
    repeated,    // `answer` is the earlier one
    under_way,   // the first one has not been answered yet
    other_body,  // the key was used for something else
  };
  struct Lookup {
    Verdict verdict = Verdict::fresh;
    std::optional<HttpResponse> answer;
  };
  // `scope` tells callers and paths apart; `body_digest` what was asked. A fresh key is remembered as under way.
  Lookup begin(const std::string& scope, const std::string& key, const std::string& body_digest);
  void keep(const std::string& scope, const std::string& key, const HttpResponse& answer);
  // It was never answered: a repetition is fresh again.
  void forget(const std::string& scope, const std::string& key);

 private:
  struct Entry {
    std::string body_digest;
    std::optional<HttpResponse> answer;
  };
  std::map<std::string, Entry> entries_;
  std::deque<std::string> order_;
};

// An exchange that hands its answer to the cache on the way out.
HttpExchangePtr remember_answer(HttpExchangePtr exchange, IdempotencyCache& cache, std::string scope, std::string key);

}  // namespace tidegate
