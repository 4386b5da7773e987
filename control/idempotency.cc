#include "control/idempotency.h"

#include <algorithm>

namespace tidegate {

namespace {

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
    if (order_.size() == kMaxKept) {
      entries_.erase(order_.front());
      order_.pop_front();
    }
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
  if (found != entries_.end()) found->second.answer = answer;
}

void IdempotencyCache::forget(const std::string& scope, const std::string& key) {
  const std::string name = entry_name(scope, key);
  if (entries_.erase(name) != 0) order_.erase(std::remove(order_.begin(), order_.end(), name), order_.end());
}

HttpExchangePtr remember_answer(HttpExchangePtr exchange, IdempotencyCache& cache, std::string scope, std::string key) {
  return std::make_shared<RememberingExchange>(std::move(exchange), cache, std::move(scope), std::move(key));
}

}  // namespace tidegate
