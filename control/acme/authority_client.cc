// SPDX-License-Identifier: Apache-2.0
#include "control/acme/authority_client.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "core/assert.h"
#include "core/clock.h"
#include "core/http1.h"

namespace tidegate::acme {

struct AuthorityClient::Call {
  Call() : easy(curl_easy_init()) { TIDEGATE_ASSERT(easy != nullptr, "libcurl makes a transfer"); }
  ~Call() {
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  CURL* const easy;
  curl_slist* headers = nullptr;
  std::array<char, CURL_ERROR_SIZE> error{};
  Request request;
  std::string ca_pem;
  size_t answer_bytes = 0;
  Answer answer;
  std::function<void(Result<Answer>)> done;

  // libcurl ends the transfer if the body is larger.
  static size_t take_body(char* bytes, size_t, size_t count, void* self) {
    auto& call = *static_cast<Call*>(self);
    if (call.answer.body.size() + count > call.answer_bytes) return 0;
    call.answer.body.append(bytes, count);
    return count;
  }
};

namespace {

// A value that is not printable, or too long, is dropped, because it would go into a later request.
std::string sound_value(std::string_view value) {
  constexpr size_t kMaxBytes = 2'048;
  const size_t first = value.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  value = value.substr(first, value.find_last_not_of(" \t\r\n") + 1 - first);
  for (const char c : value) {
    if (c < ' ' || c > '~') return {};
  }
  return value.size() <= kMaxBytes ? std::string(value) : std::string();
}

size_t take_field(char* bytes, size_t, size_t count, void* out) {
  const std::string_view line(bytes, count);
  auto& answer = *static_cast<Answer*>(out);
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return count;
  const std::string_view name = line.substr(0, colon), value = line.substr(colon + 1);
  if (http1::equals_ignore_case(name, "Replay-Nonce")) {
    answer.nonce = sound_value(value);
  } else if (http1::equals_ignore_case(name, "Location")) {
    answer.location = sound_value(value);
  } else if (http1::equals_ignore_case(name, "Retry-After")) {
    answer.retry_after_s = parse_retry_after_s(sound_value(value), static_cast<int64_t>(realtime_ns() / kNsPerS));
  }
  return count;
}

}  // namespace

AuthorityClient::AuthorityClient(EventLoop& loop, AuthorityClientRules rules)
    : loop_(loop), rules_(rules), curl_(loop) {}

AuthorityClient::~AuthorityClient() {
  if (call_) curl_.remove(call_->easy);
}

void AuthorityClient::send(const Request& request, const std::string& ca_pem,
                           std::function<void(Result<Answer>)> done) {
  TIDEGATE_ASSERT(!call_, "one request at a time");
  call_ = std::make_unique<Call>();
  Call& call = *call_;
  call.request = request;
  call.ca_pem = ca_pem;
  call.answer_bytes = rules_.answer_bytes;
  call.done = std::move(done);
  CURL* const easy = call.easy;
  curl_easy_setopt(easy, CURLOPT_URL, call.request.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, rules_.protocols);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "tidegate");
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(rules_.connect_ms));
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(rules_.request_ms));
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call.error.data());
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Call::take_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &call);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &take_field);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &call.answer);
  if (request.method == Request::Method::head) curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  if (request.method == Request::Method::post) {
    call.headers = curl_slist_append(call.headers, fmt::format("Content-Type: {}", request.media_type).c_str());
    call.headers = curl_slist_append(call.headers, "Expect:");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call.headers);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call.request.body.c_str());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call.request.body.size()));
  }
  if (!call.ca_pem.empty()) {
    const curl_blob roots{call.ca_pem.data(), call.ca_pem.size(), CURL_BLOB_NOCOPY};
    curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &roots);
  }
  curl_.add(easy, [this](CURLcode code) { finish(code); });
}

void AuthorityClient::later(std::function<void()> then) {
  loop_.defer([life = std::weak_ptr<int>(life_), then = std::move(then)] {
    if (!life.expired()) then();
  });
}

void AuthorityClient::finish(CURLcode code) {
  const std::unique_ptr<Call> call = std::move(call_);  // `done` may send the next request
  long status = 0;
  curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
  call->answer.status = static_cast<int>(status);
  Result<Answer> answer = std::move(call->answer);
  if (code != CURLE_OK) {
    answer = fail(fmt::format("{}: {}", call->request.url,
                              call->error[0] != '\0' ? call->error.data() : curl_easy_strerror(code)));
  }
  // Called outside of libcurl, because the caller may destroy this object.
  later([done = std::move(call->done), answer = std::move(answer)] { done(answer); });
}

}  // namespace tidegate::acme
