// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/redis_link.h"

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <openssl/sha.h>
#include <sys/epoll.h>

#include <deque>
#include <thread>

#include "core/assert.h"
#include "core/clock.h"
#include "core/event_loop.h"
#include "core/log.h"
#include "l7/limits.h"

namespace tidegate::l7::policy {
namespace {

constexpr uint64_t kReconnectMs = 200;

std::string hex_sha1(std::string_view text) {
  unsigned char digest[SHA_DIGEST_LENGTH];
  ::SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  constexpr const char* kDigits = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : digest) (hex += kDigits[byte >> 4]) += kDigits[byte & 15];
  return hex;
}

}  // namespace

class RedisLink::Thread final : public IoHandler {
 public:
  Thread(Options options, std::string script)
      : options_(std::move(options)), script_(std::move(script)), sha1_(hex_sha1(script_)) {
    thread_ = std::thread([this] {
      connect();
      loop_.run();
      losing_ = true;  // the disconnect is on purpose
      drop();
    });
  }
  ~Thread() {
    loop_.stop();
    thread_.join();
  }

  bool eval(std::string key, std::vector<std::string> arguments, Done done) {
    if (!up.load(std::memory_order_relaxed)) return false;
    if (in_flight_.fetch_add(1, std::memory_order_relaxed) >= kRedisCommands) {
      in_flight_.fetch_sub(1, std::memory_order_relaxed);
      return false;
    }
    auto command = std::make_shared<Command>();
    command->key = std::move(key);
    command->arguments = std::move(arguments);
    command->done = std::move(done);
    command->deadline_ns = monotonic_ns() + options_.timeout_ms * kNsPerMs;
    loop_.post([this, command] { send(command); });
    return true;
  }

  std::atomic<bool> up{true};
  std::atomic<uint64_t> calls{0}, failures{0};

 private:
  struct Command {
    std::string key;
    std::vector<std::string> arguments;
    Done done;
    uint64_t deadline_ns = 0;
    bool whole_script = false;  // the server did not know the script by its digest
  };
  using CommandPointer = std::shared_ptr<Command>;

  void connect() {
    context_ = ::redisAsyncConnect(options_.address.address.to_string().c_str(), options_.address.port);
    if (context_ == nullptr || context_->err != 0) return lose("no connection");
    context_->data = this;
    context_->ev = {this,
                    [](void* self) { static_cast<Thread*>(self)->watch(EPOLLIN, true); },
                    [](void* self) { static_cast<Thread*>(self)->watch(EPOLLIN, false); },
                    [](void* self) { static_cast<Thread*>(self)->watch(EPOLLOUT, true); },
                    [](void* self) { static_cast<Thread*>(self)->watch(EPOLLOUT, false); },
                    [](void* self) { static_cast<Thread*>(self)->unwatch(); }};
    connected_ = false;
    connect_deadline_ns_ = monotonic_ns() + std::max<uint64_t>(options_.timeout_ms, 100) * kNsPerMs;
    ::redisAsyncSetConnectCallback(context_, [](const redisAsyncContext* context, int status) {
      static_cast<Thread*>(context->data)->on_connected(status);
    });
    ::redisAsyncSetDisconnectCallback(context_, [](const redisAsyncContext* context, int) {
      static_cast<Thread*>(context->data)->on_disconnected();
    });
    if (!options_.password.empty()) {  // servers before Redis 6 have no users
      const char* with_user[] = {"AUTH", options_.user.c_str(), options_.password.c_str()};
      const char* alone[] = {"AUTH", options_.password.c_str()};
      options_.user.empty() ? ask(2, alone, nullptr) : ask(3, with_user, nullptr);
    }
    // The first answer shows that the server executes commands, and that the password is right.
    const char* ping[] = {"PING"};
    ask(1, ping, [](redisAsyncContext*, void* reply, void* self) {
      static_cast<Thread*>(self)->on_pong(static_cast<redisReply*>(reply));
    });
    timer_.arm_at_ns(connect_deadline_ns_);
  }
  void ask(int count, const char** words, redisCallbackFn* then) {
    std::vector<size_t> sizes;
    for (int i = 0; i < count; ++i) sizes.push_back(std::string_view(words[i]).size());
    ::redisAsyncCommandArgv(context_, then, this, count, words, sizes.data());
  }

  void on_connected(int status) {
    if (status != REDIS_OK) context_ = nullptr;  // hiredis frees it
    if (status != REDIS_OK) lose("the connection was refused");
  }
  void on_pong(const redisReply* reply) {
    if (reply == nullptr) return;  // the connection has ended, which is handled elsewhere
    if (reply->type == REDIS_REPLY_ERROR) return lose(reply->str);
    connected_ = true;
    if (!up.exchange(true)) log_info("redis {} is back", options_.address.to_string());
  }
  void on_disconnected() {
    context_ = nullptr;
    lose("the connection broke");
  }

  void send(const CommandPointer& command) {
    if (context_ == nullptr) return end(command, {});
    std::vector<std::string> words = {command->whole_script ? "EVAL" : "EVALSHA",
                                      command->whole_script ? script_ : sha1_, "1", command->key};
    words.insert(words.end(), command->arguments.begin(), command->arguments.end());
    std::vector<const char*> pointers;
    std::vector<size_t> sizes;
    for (const std::string& word : words) {
      pointers.push_back(word.data());
      sizes.push_back(word.size());
    }
    sent_.push_back(command);
    calls.fetch_add(1, std::memory_order_relaxed);
    ::redisAsyncCommandArgv(
        context_,
        [](redisAsyncContext*, void* reply, void* self) {
          static_cast<Thread*>(self)->on_answer(static_cast<redisReply*>(reply));
        },
        this, static_cast<int>(words.size()), pointers.data(), sizes.data());
    if (!timer_.armed() || sent_.size() == 1) timer_.arm_at_ns(next_deadline_ns());
  }

  // Answers come in the order of the commands. Null: the connection has ended.
  void on_answer(const redisReply* reply) {
    if (sent_.empty()) return;  // all callers have been told
    const CommandPointer command = sent_.front();
    sent_.pop_front();
    if (reply == nullptr) return end(command, {});
    if (reply->type == REDIS_REPLY_ERROR) {
      if (!command->whole_script && std::string_view(reply->str, reply->len).starts_with("NOSCRIPT")) {
        command->whole_script = true;
        return send(command);
      }
      log_warn_once(std::string_view(reply->str, reply->len));
      return end(command, {});
    }
    std::vector<int64_t> answer;
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; ++i) {
      answer.push_back(reply->element[i]->integer);
    }
    end(command, answer);
  }
  void end(const CommandPointer& command, const std::vector<int64_t>& answer) {
    if (answer.empty()) failures.fetch_add(1, std::memory_order_relaxed);
    in_flight_.fetch_sub(1, std::memory_order_relaxed);
    command->done(answer);
  }

  uint64_t next_deadline_ns() const {
    const uint64_t command_ns = sent_.empty() ? UINT64_MAX : sent_.front()->deadline_ns;
    return connected_ || context_ == nullptr ? command_ns : std::min(command_ns, connect_deadline_ns_);
  }
  void on_timer() {
    if (context_ == nullptr) return connect();
    if (monotonic_ns() >= next_deadline_ns()) return lose("no answer in time");
    if (next_deadline_ns() != UINT64_MAX) timer_.arm_at_ns(next_deadline_ns());
  }

  // The connection cannot be used any more. All waiting commands fail now, and a new connection is tried later.
  void lose(std::string_view why) {
    if (losing_) return;
    losing_ = true;
    failures.fetch_add(1, std::memory_order_relaxed);
    if (up.exchange(false)) log_warn("redis {}: {}", options_.address.to_string(), why);
    drop();
    timer_.arm_after_ms(kReconnectMs);
    losing_ = false;
  }
  void drop() {
    connected_ = false;
    std::deque<CommandPointer> waiting;
    waiting.swap(sent_);
    for (const CommandPointer& command : waiting) end(command, {});
    redisAsyncContext* const context = std::exchange(context_, nullptr);
    if (context == nullptr) return;
    context->data = this;
    // Within a callback hiredis frees it after the callback.
    ::redisAsyncFree(context);
  }

  void watch(uint32_t event, bool on) {
    const uint32_t wanted = on ? watched_ | event : watched_ & ~event;
    if (wanted == watched_) return;
    const int fd = context_ == nullptr ? fd_ : context_->c.fd;
    if (fd < 0) return;
    if (fd_ < 0) {
      fd_ = fd;
      loop_.add(fd, wanted, this);
    } else {
      loop_.modify(fd, wanted);
    }
    watched_ = wanted;
  }
  void unwatch() {
    if (fd_ >= 0) loop_.remove(fd_);
    fd_ = -1;
    watched_ = 0;
  }
  void on_io(uint32_t events) override {
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && context_ != nullptr) ::redisAsyncHandleRead(context_);
    if ((events & EPOLLOUT) != 0 && context_ != nullptr) ::redisAsyncHandleWrite(context_);
  }

  void log_warn_once(std::string_view error) {
    if (error == last_error_) return;
    last_error_ = error;
    log_warn("redis {}: {}", options_.address.to_string(), error);
  }

  const Options options_;
  const std::string script_, sha1_;
  EventLoop loop_;
  Timer timer_{loop_, [this] { on_timer(); }};
  redisAsyncContext* context_ = nullptr;
  std::deque<CommandPointer> sent_;
  std::atomic<size_t> in_flight_{0};
  uint64_t connect_deadline_ns_ = 0;
  int fd_ = -1;
  uint32_t watched_ = 0;
  bool connected_ = false;
  bool losing_ = false;
  std::string last_error_;
  std::thread thread_;
};

RedisLink::RedisLink(Options options, std::string script)
    : thread_(std::make_unique<Thread>(std::move(options), std::move(script))) {}
RedisLink::~RedisLink() = default;
bool RedisLink::up() const { return thread_->up.load(std::memory_order_relaxed); }
bool RedisLink::eval(std::string key, std::vector<std::string> arguments, Done done) {
  return thread_->eval(std::move(key), std::move(arguments), std::move(done));
}
uint64_t RedisLink::calls() const { return thread_->calls.load(std::memory_order_relaxed); }
uint64_t RedisLink::failures() const { return thread_->failures.load(std::memory_order_relaxed); }

}  // namespace tidegate::l7::policy
