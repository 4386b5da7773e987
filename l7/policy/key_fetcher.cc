// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/key_fetcher.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/assert.h"
#include "core/clock.h"
#include "core/curl_loop.h"
#include "core/log.h"
#include "core/token_bucket.h"
#include "l7/limits.h"

namespace tidegate::l7::policy {
namespace {

constexpr uint64_t kLookMs = 250;
constexpr TokenRate kEarly{.interval_ns = kKeySetEarlyMs * kNsPerMs, .burst = kKeySetEarlyBurst};
constexpr uint32_t kMostDoublings = 20;

}  // namespace

struct KeyFetcher::Work {
  explicit Work(std::shared_ptr<KeySource> its_source) : source(std::move(its_source)), easy(curl_easy_init()) {
    TIDEGATE_ASSERT(easy != nullptr, "libcurl makes a transfer");
  }
  ~Work() { curl_easy_cleanup(easy); }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  // Stores the received bytes, up to a bound. libcurl ends the transfer if there are more.
  static size_t take_body(char* bytes, size_t, size_t count, void* self) {
    std::string& body = static_cast<Work*>(self)->body;
    if (body.size() + count > kKeySetBytes) {
      static_cast<Work*>(self)->too_large = true;
      return 0;
    }
    body.append(bytes, count);
    return count;
  }

  const std::shared_ptr<KeySource> source;
  CURL* const easy;
  std::string body;
  std::array<char, CURL_ERROR_SIZE> error{};
  TokenBucket early;
  uint64_t refresh_ms = UINT64_MAX;
  uint64_t due_ns = 0;
  uint32_t failures = 0;  // in a row
  bool running = false;
  bool too_large = false;
};

KeyFetcher::KeyFetcher(EventLoop& loop) : loop_(loop), timer_(loop, [this] { look(); }) {}

KeyFetcher::~KeyFetcher() { follow({}); }

void KeyFetcher::follow(const std::vector<KeySourceUse>& uses) {
  const auto wanted = [&uses](const KeySource* known) {
    return std::any_of(uses.begin(), uses.end(), [known](const auto& each) { return each.source.get() == known; });
  };
  for (auto at = works_.begin(); at != works_.end();) {
    if (wanted(at->first)) {
      ++at;
      continue;
    }
    curl_->remove(at->second->easy);
    at = works_.erase(at);
  }
  for (const auto& [source, work] : works_) work->refresh_ms = UINT64_MAX;
  for (const KeySourceUse& use : uses) {
    std::unique_ptr<Work>& work = works_[use.source.get()];
    if (work == nullptr) work = std::make_unique<Work>(use.source);
    work->refresh_ms = std::min(work->refresh_ms, use.refresh_ms);
    work->due_ns = std::min(work->due_ns, loop_.now_ns() + work->refresh_ms * kNsPerMs);
  }
  if (works_.empty()) return timer_.cancel();
  if (!curl_) curl_ = std::make_unique<CurlLoop>(loop_);
  look();
}

void KeyFetcher::look() {
  const uint64_t now_ns = loop_.now_ns();
  for (const auto& [source, work] : works_) {
    if (work->running) continue;
    if (now_ns >= work->due_ns) {
      start(*work);
    } else if (source->has_unknown_key() && work->early.take(kEarly, 1, now_ns)) {
      source->count_early();
      start(*work);
    }
  }
  timer_.arm_after_ms(kLookMs);
}

void KeyFetcher::start(Work& work) {
  const KeySource::Terms& terms = work.source->terms();
  work.running = true;
  work.too_large = false;
  work.body.clear();
  work.error[0] = '\0';
  work.source->forget_unknown_key();
  CURL* const easy = work.easy;
  curl_easy_reset(easy);
  curl_easy_setopt(easy, CURLOPT_URL, terms.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, terms.url.starts_with("https:") ? "https" : "http");
  // the document says where keys come from, so redirects are not followed
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_PROXY, "");  // the proxy in the environment is not for us
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(kKeySetFetchMs));
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, work.error.data());
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Work::take_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &work);
  if (!terms.ca_pem.empty()) {
    curl_blob ca{const_cast<char*>(terms.ca_pem.data()), terms.ca_pem.size(), CURL_BLOB_NOCOPY};
    curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &ca);
  }
  curl_->add(easy, [this, &work](CURLcode code) {
    long status = 0;
    curl_easy_getinfo(work.easy, CURLINFO_RESPONSE_CODE, &status);
    if (work.too_large) {
      finish(work, fmt::format("it has more than {} bytes", kKeySetBytes));
    } else if (code != CURLE_OK) {
      finish(work, work.error[0] != '\0' ? work.error.data() : curl_easy_strerror(code));
    } else {
      finish(work, status == 200 ? std::string() : fmt::format("status {}", status));
    }
  });
}

// `why`: the reason of a failure; empty: the body is there.
void KeyFetcher::finish(Work& work, const std::string& why) {
  KeySource& source = *work.source;
  const uint64_t now_ns = loop_.now_ns();
  work.running = false;
  std::vector<std::string> left_out;
  Result<std::vector<Jwk>> keys = why.empty() ? parse_jwks(work.body, &left_out) : fail(why);
  if (keys) {
    work.failures = 0;
    work.due_ns = now_ns + work.refresh_ms * kNsPerMs;
    const size_t count = keys->size();
    if (source.take(work.body, *std::move(keys), now_ns)) {
      log_info("keys of {}: a set of {} is in force", source.terms().url, count);
      for (const std::string& fault : left_out) log_warn("keys of {}: left out: {}", source.terms().url, fault);
    }
    return;
  }
  const uint64_t wait_ms = kKeySetRetryMs << std::min(work.failures, kMostDoublings);
  ++work.failures;
  work.due_ns = now_ns + std::min(wait_ms, work.refresh_ms) * kNsPerMs;
  if (source.fail_with(keys.error().message)) {
    log_warn("keys of {}: {}; {}", source.terms().url, keys.error().message,
             source.keys() == nullptr ? "there are none yet" : "the last good set stays in force");
  }
}

}  // namespace tidegate::l7::policy
