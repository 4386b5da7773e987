#include "control/idempotency.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/lmdb_check.h"
#include "core/log.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr size_t kMapBytes = size_t{128} << 20;  // all that may be kept, and room for the pages of a transaction

std::string encode(const std::string& name, const std::string& body_digest, const HttpResponse& answer) {
  const json record = {name, body_digest, answer.status, answer.headers, answer.body};
  const std::vector<uint8_t> bytes = json::to_msgpack(record);
  return {bytes.begin(), bytes.end()};
}

std::string entry_name(const std::string& scope, const std::string& key) { return scope + '\n' + key; }

class RememberingExchange : public HttpExchange {
 public:
  RememberingExchange(HttpExchangePtr inner, IdempotencyCache& cache, std::string scope, std::string key)
      : inner_(std::move(inner)), cache_(cache), scope_(std::move(scope)), key_(std::move(key)) {}
  ~RememberingExchange() override {
    if (!kept_) cache_.forget(scope_, key_);
  }

  const HttpRequest& request() const override { return inner_->request(); }
  void respond(HttpResponse response) override {
    // What failed on our side may be tried again under the same key.
    if (response.status < 500) {
      cache_.keep(scope_, key_, response);
      kept_ = true;
    }
    inner_->respond(std::move(response));
  }
  void begin_stream(int status, std::vector<std::pair<std::string, std::string>> headers) override {
    inner_->begin_stream(status, std::move(headers));
  }
  bool write(std::string_view bytes) override { return inner_->write(bytes); }
  void end_stream() override { inner_->end_stream(); }
  void on_close(std::function<void()> fn) override { inner_->on_close(std::move(fn)); }

 private:
  HttpExchangePtr inner_;
  IdempotencyCache& cache_;
  std::string scope_, key_;
  bool kept_ = false;
};

}  // namespace

IdempotencyCache::Lookup IdempotencyCache::begin(const std::string& scope, const std::string& key,
                                                 const std::string& body_digest) {
  const std::string name = entry_name(scope, key);
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    if (order_.size() == kMaxKept) drop_oldest();
    entries_[name] = {body_digest, std::nullopt};
    order_.push_back(name);
    return {};
  }
  if (found->second.body_digest != body_digest) return {Verdict::other_body, std::nullopt};
  if (!found->second.answer) return {Verdict::under_way, std::nullopt};
  return {Verdict::repeated, found->second.answer};
}

void IdempotencyCache::keep(const std::string& scope, const std::string& key, const HttpResponse& answer) {
  const auto found = entries_.find(entry_name(scope, key));
  if (found == entries_.end()) return;
  found->second.answer = answer;
  if (!env_ || answer.body.size() > kMaxDurableBytes) return;
  found->second.sequence = next_sequence_++;
  if (Result<void> stored = store(found->first, found->second); !stored) {
    log_warn("the answer to an Idempotency-Key is kept in memory alone: {}", stored.error().message);
  }
}

void IdempotencyCache::drop_oldest() {
  const auto oldest = entries_.find(order_.front());
  if (oldest->second.sequence != 0) dropped_.push_back(oldest->second.sequence);
  entries_.erase(oldest);
  order_.pop_front();
}

Result<void> IdempotencyCache::open(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (Result<void> sound = lmdb::check(directory); !sound) {
    log_warn("the kept answers are begun anew: {}", sound.error().message);
    fs::remove_all(directory, error);
  }
  fs::create_directories(directory, error);
  lmdb::EnvOptions options;
  options.map_bytes = kMapBytes;
  options.file_mode = 0600;
  Result<lmdb::Env> env = lmdb::Env::open(directory, options);
  if (!env) return env.error();
  env_.emplace(*std::move(env));
  Result<void> loaded = load();
  if (!loaded) env_.reset();
  return loaded;
}

Result<void> IdempotencyCache::load() {
  Result<lmdb::Txn> txn = lmdb::Txn::begin(*env_, lmdb::Access::write);
  if (!txn) return txn.error();
  Result<MDB_dbi> db = txn->open_db("answers", MDB_CREATE);
  if (!db) return db.error();
  records_ = *db;
  {
    lmdb::Cursor cursor(*txn, records_);
    for (bool more = cursor.first(); more; more = cursor.next()) {
      const uint64_t sequence = lmdb::be64(cursor.key());
      next_sequence_ = sequence + 1;
      try {
        const json record = json::from_msgpack(cursor.value());
        HttpResponse answer;
        answer.status = record.at(2).get<int>();
        answer.headers = record.at(3).get<decltype(answer.headers)>();
        answer.body = record.at(4).get<std::string>();
        const std::string name = record.at(0).get<std::string>();
        if (entries_.try_emplace(name, Entry{record.at(1).get<std::string>(), std::move(answer), sequence}).second) {
          order_.push_back(name);
        }
      } catch (const json::exception&) {
        dropped_.push_back(sequence);  // of another release
      }
    }
  }
  while (order_.size() > kMaxKept) drop_oldest();
  return txn->commit();
}

Result<void> IdempotencyCache::store(const std::string& name, const Entry& entry) {
  Result<lmdb::Txn> txn = lmdb::Txn::begin(*env_, lmdb::Access::write);
  if (!txn) return txn.error();
  for (const uint64_t sequence : dropped_) {
    if (Result<bool> erased = txn->erase(records_, lmdb::be64(sequence)); !erased) return erased.error();
  }
  const std::string record = encode(name, entry.body_digest, *entry.answer);
  if (Result<void> put = txn->put(records_, lmdb::be64(entry.sequence), record); !put) return put;
  Result<void> committed = txn->commit();
  if (committed) dropped_.clear();
  return committed;
}

void IdempotencyCache::forget(const std::string& scope, const std::string& key) {
  const std::string name = entry_name(scope, key);
  if (entries_.erase(name) != 0) order_.erase(std::remove(order_.begin(), order_.end(), name), order_.end());
}

HttpExchangePtr remember_answer(HttpExchangePtr exchange, IdempotencyCache& cache, std::string scope, std::string key) {
  return std::make_shared<RememberingExchange>(std::move(exchange), cache, std::move(scope), std::move(key));
}

}  // namespace tidegate
