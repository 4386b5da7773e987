// Idempotency: a POST repeated with the same Idempotency-Key is answered as before and not done again
// (draft-ietf-httpapi-idempotency-key-header). Bounded; kept on disk too, so that a client may go on trying while
// control is started again. An answer is on disk before it is sent; a control that dies between its commit and that
// does the same twice.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/http_server.h"
#include "core/lmdb.h"
#include "core/result.h"

namespace tidegate {

class IdempotencyCache {
 public:
  static constexpr size_t kMaxKept = 1024;
  static constexpr size_t kMaxKeyBytes = 255;
  static constexpr size_t kMaxDurableBytes = 32 << 10;  // an answer with a longer body is kept in memory alone

  // Takes the answers of before from `directory` and keeps later ones there. What is damaged there is begun anew.
  // Error: they are kept in memory alone.
  Result<void> open(const std::string& directory);

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
    uint64_t sequence = 0;  // of its record; 0: it has none
  };
  void drop_oldest();
  Result<void> load();
  Result<void> store(const std::string& name, const Entry& entry);

  std::map<std::string, Entry> entries_;
  std::deque<std::string> order_;
  std::optional<lmdb::Env> env_;
  MDB_dbi records_ = 0;
  uint64_t next_sequence_ = 1;
  std::vector<uint64_t> dropped_;  // records to erase with the next one that is stored
};

// An exchange that hands its answer to the cache on the way out.
HttpExchangePtr remember_answer(HttpExchangePtr exchange, IdempotencyCache& cache, std::string scope, std::string key);

}  // namespace tidegate
