// SPDX-License-Identifier: Apache-2.0
#include "control/api/idempotency.h"

#include <nlohmann/json.hpp>

#include "control/host_state.h"
#include "core/assert.h"
#include "core/crypto.h"
#include "core/log.h"

namespace tidegate {

namespace {

using nlohmann::json;

struct Answered {
  std::string body_digest;
  HttpResponse answer;
};

std::string encode(const std::string& body_digest, const HttpResponse& answer) {
  const json record = {body_digest, answer.status, answer.headers, answer.body};
  const std::vector<uint8_t> bytes = json::to_msgpack(record);
  return {bytes.begin(), bytes.end()};
}

// Returns nothing for a record in another form, which another release wrote.
std::optional<Answered> decode(const std::string& bytes) {
  try {
    const json record = json::from_msgpack(bytes);
    HttpResponse answer{record.at(1).get<int>(), {}, record.at(3).get<std::string>()};
    answer.headers = record.at(2).get<decltype(answer.headers)>();
    return Answered{record.at(0).get<std::string>(), std::move(answer)};
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

class RememberingExchange : public HttpExchange {
 public:
  RememberingExchange(HttpExchangePtr inner, Idempotency& posts, OnceOnly once)
      : inner_(std::move(inner)), posts_(posts), once_(std::move(once)) {}
  ~RememberingExchange() override {
    if (!finished_) posts_.abandon(once_);
  }

  const HttpRequest& request() const override { return inner_->request(); }
  std::string take_body() override { return inner_->take_body(); }
  void respond(HttpResponse response) override {
    // After a failure of ours, the client may try again with the same key.
    if (response.status >= 500) return inner_->respond(std::move(response));
    finished_ = true;
    posts_.finish(once_, response, [inner = inner_, response] { inner->respond(response); });
  }
  void begin_stream(int status, std::vector<std::pair<std::string, std::string>> headers) override {
    inner_->begin_stream(status, std::move(headers));
  }
  bool write(std::string_view bytes) override { return inner_->write(bytes); }
  bool write_shared(std::shared_ptr<const std::string> bytes) override {
    return inner_->write_shared(std::move(bytes));
  }
  void end_stream() override { inner_->end_stream(); }
  void on_close(std::function<void()> fn) override { inner_->on_close(std::move(fn)); }

 private:
  HttpExchangePtr inner_;
  Idempotency& posts_;
  OnceOnly once_;
  bool finished_ = false;
};

}  // namespace

OnceOnly once_only(const Principal& who, const HttpRequest& request, std::string_view key) {
  TIDEGATE_ASSERT(!who.key_space.empty(), "each principal has keys of its own");
  const auto digest = [&](std::string whose) {
    return sha256_hex(whose.append(1, ' ').append(request.target).append(1, '\n').append(key));
  };
  return {digest("key of " + who.key_space), sha256_hex(request.body), who.shares_name ? "" : digest(who.name)};
}

KeptAnswer kept_answer(const OnceOnly& once, const HttpResponse& answer) {
  return {once.request, encode(once.body_digest, answer)};
}

Result<Idempotency::Lookup> Idempotency::begin(const OnceOnly& once) {
  if (const auto first = under_way_.find(once.request); first != under_way_.end()) {
    return Lookup{first->second == once.body_digest ? Verdict::under_way : Verdict::other_body, std::nullopt};
  }
  Result<std::optional<std::string>> record = host_state_.store().kept_answer(once.request);
  if (record && !*record && !once.earlier_request.empty())
    record = host_state_.store().kept_answer(once.earlier_request);
  if (!record) return record.error();
  std::optional<Answered> earlier;
  if (*record) earlier = decode(**record);
  if (!earlier) {
    under_way_.emplace(once.request, once.body_digest);
    return Lookup{};
  }
  if (earlier->body_digest != once.body_digest) return Lookup{Verdict::other_body, std::nullopt};
  return Lookup{Verdict::repeated, std::move(earlier->answer)};
}

void Idempotency::finish(const OnceOnly& once, const HttpResponse& answer, std::function<void()> kept) {
  const KeptAnswer to_keep = kept_answer(once, answer);
  const Result<std::optional<std::string>> committed = host_state_.store().kept_answer(once.request);
  if (committed && *committed == to_keep.answer) {
    under_way_.erase(once.request);
    return kept();
  }
  host_state_.decide<Result<void>>([this, to_keep] { return host_state_.keep_answer(to_keep); },
                                   [this, request = once.request, kept = std::move(kept)](const Result<void>& stored) {
                                     under_way_.erase(request);
                                     if (!stored) {
                                       log_warn("the answer to an Idempotency-Key is not kept: {}",
                                                stored.error().message);
                                     }
                                     kept();
                                   });
}

HttpExchangePtr remember_answer(HttpExchangePtr exchange, Idempotency& posts, OnceOnly once) {
  return std::make_shared<RememberingExchange>(std::move(exchange), posts, std::move(once));
}

}  // namespace tidegate
