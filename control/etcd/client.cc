// SPDX-License-Identifier: Apache-2.0
#include "control/etcd/client.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "control/api/json_bounds.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/log.h"

namespace tidegate::etcd {

using nlohmann::json;

namespace {

constexpr int kUnauthorized = 401;
constexpr size_t kReadsBeside = 8;             // calls whose large answers are read; a further one is read on the loop
constexpr uint64_t kUploadBytesPerMs = 1'000;  // upload speed of a slow link

struct Easy {
  Easy() : handle(curl_easy_init()) { TIDEGATE_ASSERT(handle != nullptr, "libcurl makes a transfer"); }
  ~Easy() {
    curl_easy_cleanup(handle);
    curl_slist_free_all(headers);
  }
  Easy(const Easy&) = delete;
  Easy& operator=(const Easy&) = delete;
  CURL* const handle;
  curl_slist* headers = nullptr;
  std::array<char, CURL_ERROR_SIZE> error{};

  std::string why(CURLcode code) const { return error[0] != '\0' ? error.data() : curl_easy_strerror(code); }
};

// Stores the received bytes, up to a bound. libcurl ends the transfer if there are more.
size_t take_body(char* bytes, size_t, size_t count, void* out) {
  auto& body = *static_cast<std::string*>(out);
  if (body.size() + count > kMaxEtcdAnswerBytes) return 0;
  body.append(bytes, count);
  return count;
}

}  // namespace

struct Client::Call {
  std::string path, body;
  Done done;
  std::unique_ptr<Easy> easy;
  std::string answer;
  size_t tries = 0;
  size_t endpoint = 0;  // endpoint of the present try
  bool logged_in_again = false;
  std::string first_failure;
};

struct Client::Watch {
  Easy easy;
  std::string body, buffer;
  std::function<void(const WatchAnswer&)> on_answer;
  std::function<void(const std::string&)> ended;
};

Result<std::vector<std::string>> parse_endpoints(const std::string& list) {
  std::vector<std::string> endpoints;
  size_t start = 0;
  while (start <= list.size()) {
    const size_t end = std::min(list.find(',', start), list.size());
    std::string each = list.substr(start, end - start);
    start = end + 1;
    CURLU* url = curl_url();
    const bool sound = curl_url_set(url, CURLUPART_URL, each.c_str(), 0) == CURLUE_OK;
    const auto part = [&](CURLUPart which) {
      char* text = nullptr;
      std::string value;
      if (sound && curl_url_get(url, which, &text, 0) == CURLUE_OK && text != nullptr) value = text;
      curl_free(text);
      return value;
    };
    const std::string scheme = part(CURLUPART_SCHEME), path = part(CURLUPART_PATH);
    const bool fits = (scheme == "http" || scheme == "https") && (path.empty() || path == "/") &&
                      part(CURLUPART_QUERY).empty() && part(CURLUPART_USER).empty() && part(CURLUPART_FRAGMENT).empty();
    curl_url_cleanup(url);
    if (!fits) return fail(fmt::format("'{}' is not http://HOST:PORT or https://HOST:PORT", each));
    while (each.ends_with('/')) each.pop_back();
    endpoints.push_back(std::move(each));
  }
  if (endpoints.size() > kMaxEtcdEndpoints) return fail(fmt::format("more than {} endpoints", kMaxEtcdEndpoints));
  return endpoints;
}

Client::Client(EventLoop& loop, ClientOptions options)
    : loop_(loop), options_(std::move(options)), curl_(loop), reads_(loop, "control-etcd", kReadsBeside) {
  TIDEGATE_ASSERT(!options_.endpoints.empty(), "a client has an endpoint");
  curl_.after_each_turn([this] { take_watch_lines(); });
}

Client::~Client() {
  end_watch();
  for (const auto& [key, call] : calls_) {
    if (call->easy) curl_.remove(call->easy->handle);
  }
}

curl_slist* Client::headers() const {
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  list = curl_slist_append(list, "Expect:");  // avoids a round trip before a large body
  if (!token_.empty()) list = curl_slist_append(list, ("Authorization: " + token_).c_str());
  return list;
}

void Client::prepare(CURL* easy, const std::string& url, curl_slist* headers, const std::string& body) const {
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_PROXY, "");  // the proxy in the environment is not for us
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(kTryMs));
  if (!options_.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, options_.ca_file.c_str());
  if (!options_.certificate_file.empty()) {
    curl_easy_setopt(easy, CURLOPT_SSLCERT, options_.certificate_file.c_str());
    curl_easy_setopt(easy, CURLOPT_SSLKEY, options_.key_file.c_str());
  }
}

void Client::call(const std::string& path, const json& body, Done done) {
  const auto call = std::make_shared<Call>();
  call->path = path;
  call->body = dump(body);
  call->done = std::move(done);
  call->endpoint = current_;
  calls_.emplace(call.get(), call);
  if (!options_.user.empty() && token_.empty() && path != "/v3/auth/authenticate") return log_in(call);
  start(call);
}

void Client::start(const std::shared_ptr<Call>& call) {
  call->answer.clear();
  call->easy = std::make_unique<Easy>();
  ++call->tries;
  CURL* const easy = call->easy->handle;
  call->easy->headers = headers();
  prepare(easy, options_.endpoints[call->endpoint] + call->path, call->easy->headers, call->body);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &take_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &call->answer);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->easy->error.data());
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(kTryMs + call->body.size() / kUploadBytesPerMs));
  curl_.add(easy, [this, call](CURLcode code) { finish(call, code); });
}

bool Client::try_next(const std::shared_ptr<Call>& call) {
  if (call->tries >= options_.endpoints.size()) return false;
  call->endpoint = (call->endpoint + 1) % options_.endpoints.size();
  start(call);
  return true;
}

void Client::finish(const std::shared_ptr<Call>& call, CURLcode code) {
  long status = 0;
  curl_easy_getinfo(call->easy->handle, CURLINFO_RESPONSE_CODE, &status);
  if (code != CURLE_OK) return judge(call, status, call->easy->why(code), json());
  const bool beside = call->answer.size() > kReadAtOnceBytes && reads_.jobs() < kReadsBeside;
  if (!beside) return judge(call, status, {}, parse_json(call->answer));
  (void)reads_.run([text = std::move(call->answer)] { return parse_json(text); },
                   [this, call, status](std::optional<Result<json>> answer) {
                     judge(call, status, answer ? "" : "it could not be read; the log says why",
                           answer ? *std::move(answer) : json());
                   });
}

void Client::judge(const std::shared_ptr<Call>& call, long status, std::string failure, Result<json> answer) {
  if (failure.empty()) {
    if (!answer) {
      failure = fmt::format("the answer (status {}) is not JSON: {}", status, answer.error().message);
    } else if (const std::optional<std::string> error = error_in(*answer)) {
      failure = *error;
    } else if (status != 200) {
      failure = fmt::format("status {}", status);
    }
  }
  if (failure.empty()) {
    current_ = call->endpoint;
    return finish_with(call, std::move(answer));
  }
  if (status == kUnauthorized && !options_.user.empty() && !call->logged_in_again &&
      call->path != "/v3/auth/authenticate") {
    call->logged_in_again = true;
    return log_in(call);
  }
  failure = fmt::format("{}: {}", options_.endpoints[call->endpoint], failure);
  if (call->first_failure.empty()) call->first_failure = failure;
  if (current_ == call->endpoint) current_ = (current_ + 1) % options_.endpoints.size();
  if (!try_next(call)) finish_with(call, fail(call->first_failure));
}

void Client::finish_with(const std::shared_ptr<Call>& call, Result<json> answer) {
  calls_.erase(call.get());
  call->done(std::move(answer));
}

void Client::log_in(const std::shared_ptr<Call>& then) {
  token_.clear();
  this->call("/v3/auth/authenticate", {{"name", options_.user}, {"password", options_.password}},
             [this, then](Result<json> answer) {
               if (!answer) return finish_with(then, fail("the login failed: " + answer.error().message));
               token_ = string_member(*answer, "token");
               // The token becomes a header field, so it must be printable.
               const bool sound = !token_.empty() &&
                                  std::all_of(token_.begin(), token_.end(), [](char c) { return c > ' ' && c < 0x7f; });
               if (!sound) {
                 token_.clear();
                 return finish_with(then, fail("the login gave no token"));
               }
               start(then);
             });
}

// --- the watch stream

void Client::watch(const json& request, std::function<void(const WatchAnswer&)> on_answer,
                   std::function<void(const std::string&)> ended) {
  end_watch();
  watch_ = std::make_shared<Watch>();
  watch_->body = dump(request);
  watch_->on_answer = std::move(on_answer);
  watch_->ended = std::move(ended);
  CURL* const easy = watch_->easy.handle;
  watch_->easy.headers = headers();
  prepare(easy, endpoint() + "/v3/watch", watch_->easy.headers, watch_->body);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &take_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &watch_->buffer);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, watch_->easy.error.data());
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_.add(easy, [this, watch = watch_.get()](CURLcode code) {
    if (watch != watch_.get()) return;
    take_watch_lines();
    if (watch == watch_.get()) end_watch_with(watch->easy.why(code));
  });
}

void Client::end_watch() {
  if (!watch_) return;
  curl_.remove(watch_->easy.handle);
  // The watch is destroyed later, because its callback may be running.
  loop_.defer([gone = std::exchange(watch_, nullptr)] {});
}

void Client::end_watch_with(const std::string& why) {
  const auto ended = watch_->ended;
  end_watch();
  ended(why);
}

// A callback may end the watch, or open another one.
void Client::take_watch_lines() {
  const std::shared_ptr<Watch> watch = watch_;
  if (!watch) return;
  size_t start = 0;
  for (size_t end = watch->buffer.find('\n'); end != std::string::npos; end = watch->buffer.find('\n', start)) {
    const std::string line = watch->buffer.substr(start, end - start);
    start = end + 1;
    const Result<json> parsed = parse_json(line);
    if (!parsed) return end_watch_with("a line of the watch is not JSON: " + parsed.error().message);
    if (const std::optional<std::string> error = error_in(*parsed)) return end_watch_with(*error);
    const Result<WatchAnswer> answer = parse_watch(*parsed);
    if (!answer) return end_watch_with(answer.error().message);
    watch->on_answer(*answer);
    if (watch != watch_) return;
  }
  watch->buffer.erase(0, start);
}

}  // namespace tidegate::etcd
