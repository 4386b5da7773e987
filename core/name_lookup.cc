// SPDX-License-Identifier: Apache-2.0
#include "core/name_lookup.h"

#include <ares.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/clock.h"
#include "core/limits.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr int kTimeoutMs = 2'000, kTries = 3;
constexpr int kClassIn = 1;
constexpr size_t kHeaderBytes = 12, kFixedRecordBytes = 10;

using Answer = NameLookup::Answer;

// The position after a name, which may end in a pointer (RFC 1035 §4.1.4); 0: the message is broken.
size_t skip_name(std::string_view message, size_t at) {
  while (at < message.size()) {
    const auto length = static_cast<uint8_t>(message[at]);
    if (length == 0) return at + 1;
    if ((length & 0xc0) == 0xc0) return at + 2 <= message.size() ? at + 2 : 0;
    if ((length & 0xc0) != 0) return 0;
    at += 1 + size_t{length};
  }
  return 0;
}

uint32_t read_16(std::string_view message, size_t at) {
  return static_cast<uint32_t>(static_cast<uint8_t>(message[at])) << 8 | static_cast<uint8_t>(message[at + 1]);
}

template <class Record, class Parse>
int read_addresses(Answer& answer, const unsigned char* message, int bytes, Parse parse) {
  std::array<Record, kNameRecords> records;
  int count = static_cast<int>(records.size());
  const int status = parse(message, bytes, nullptr, records.data(), &count);
  if (status != ARES_SUCCESS) return status;
  for (int i = 0; i < count; ++i) {
    const Record& record = records[static_cast<size_t>(i)];
    if constexpr (std::is_same_v<Record, ares_addrttl>) {
      answer.addresses.push_back(IpAddress::from(record.ipaddr));
    } else {
      answer.addresses.push_back(IpAddress::v6(&record.ip6addr));
    }
  }
  std::sort(answer.addresses.begin(), answer.addresses.end());
  answer.addresses.erase(std::unique(answer.addresses.begin(), answer.addresses.end()), answer.addresses.end());
  return ARES_SUCCESS;
}

int read_services(Answer& answer, const unsigned char* message, int bytes) {
  ares_srv_reply* first = nullptr;
  const int status = ares_parse_srv_reply(message, bytes, &first);
  if (status != ARES_SUCCESS) return status;
  for (const ares_srv_reply* at = first; at != nullptr && answer.services.size() < kNameRecords; at = at->next) {
    answer.services.push_back({at->host, at->priority, at->weight, at->port});
  }
  ares_free_data(first);
  std::sort(answer.services.begin(), answer.services.end());
  return ARES_SUCCESS;
}

}  // namespace

uint32_t smallest_ttl(std::string_view message) {
  if (message.size() < kHeaderBytes) return 0;
  const uint32_t questions = read_16(message, 4), records = read_16(message, 6);
  size_t at = kHeaderBytes;
  for (uint32_t i = 0; i < questions; ++i) {
    at = skip_name(message, at);
    if (at == 0 || at + 4 > message.size()) return 0;
    at += 4;
  }
  uint32_t smallest = UINT32_MAX;
  for (uint32_t i = 0; i < records; ++i) {
    at = skip_name(message, at);
    if (at == 0 || at + kFixedRecordBytes > message.size()) return 0;
    const uint32_t ttl = read_16(message, at + 4) << 16 | read_16(message, at + 6);
    smallest = std::min(smallest, ttl > INT32_MAX ? 0 : ttl);  // RFC 2181 §8
    at += kFixedRecordBytes + read_16(message, at + 8);
    if (at > message.size()) return 0;
  }
  return records == 0 ? 0 : smallest;
}

struct NameLookup::Question {
  NameLookup& owner;
  Type type;
  Done done;
};

// A socket of c-ares in the loop.
class NameLookup::Socket final : public IoHandler {
 public:
  Socket(NameLookup& owner, int fd) : owner_(owner), fd_(fd) {}
  void on_io(uint32_t events) override {
    NameLookup& owner = owner_;  // c-ares may end the socket, and this with it
    const int fd = fd_;
    const bool readable = (events & ~static_cast<uint32_t>(EPOLLOUT)) != 0, writable = (events & EPOLLOUT) != 0;
    ares_process_fd(owner.channel_, readable ? fd : ARES_SOCKET_BAD, writable ? fd : ARES_SOCKET_BAD);
    owner.arm();
  }

 private:
  NameLookup& owner_;
  const int fd_;
};

NameLookup::NameLookup(EventLoop& loop, const std::vector<Endpoint>& resolvers)
    : loop_(loop), timeout_(loop, [this] {
        if (channel_ != nullptr) ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        arm();
      }) {
  ares_library_init(ARES_LIB_INIT_ALL);
  ares_options options{};
  options.timeout = kTimeoutMs;
  options.tries = kTries;
  std::array<char, 2> lookups{'b', '\0'};  // DNS alone: no file of hosts
  options.lookups = lookups.data();
  options.sock_state_cb = on_socket;
  options.sock_state_cb_data = this;
  const int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
  if (const int status = ares_init_options(&channel_, &options, mask); status != ARES_SUCCESS) {
    channel_ = nullptr;
    trouble_ = ares_strerror(status);
    log_error("names cannot be looked up: {}", trouble_);
    return;
  }
  if (resolvers.empty()) return;
  std::string list;
  for (const Endpoint& each : resolvers) list += (list.empty() ? "" : ",") + each.to_string();
  if (const int status = ares_set_servers_ports_csv(channel_, list.c_str()); status != ARES_SUCCESS) {
    log_error("resolvers {}: {}", list, ares_strerror(status));
  }
}

NameLookup::~NameLookup() {
  closing_ = true;
  if (channel_ != nullptr) ares_destroy(channel_);
  ares_library_cleanup();
}

void NameLookup::ask(const std::string& name, Type type, Done done) {
  if (channel_ == nullptr) return done({Answer::Kind::failed, {}, {}, 0, trouble_});
  questions_.push_back(std::unique_ptr<Question>(new Question{*this, type, std::move(done)}));
  ares_query(channel_, name.c_str(), kClassIn, static_cast<int>(type), on_answer, questions_.back().get());
  arm();
}

void NameLookup::on_answer(void* asked, int status, int, unsigned char* message, int bytes) {
  auto& question = *static_cast<Question*>(asked);
  NameLookup& owner = question.owner;
  if (owner.closing_) return;
  Answer answer;
  if (status == ARES_SUCCESS) {
    answer.ttl_s = smallest_ttl({reinterpret_cast<const char*>(message), static_cast<size_t>(bytes)});
    status = question.type == Type::a ? read_addresses<ares_addrttl>(answer, message, bytes, ares_parse_a_reply)
             : question.type == Type::aaaa
                 ? read_addresses<ares_addr6ttl>(answer, message, bytes, ares_parse_aaaa_reply)
                 : read_services(answer, message, bytes);
  }
  const bool none = status == ARES_ENODATA || status == ARES_ENOTFOUND;
  const bool empty = answer.addresses.empty() && answer.services.empty();
  if (status == ARES_SUCCESS) {
    answer.kind = empty ? Answer::Kind::none : Answer::Kind::found;
  } else {
    answer.kind = none ? Answer::Kind::none : Answer::Kind::failed;
    answer.reason = ares_strerror(status);
  }
  const Done done = std::move(question.done);
  std::erase_if(owner.questions_, [&](const auto& each) { return each.get() == &question; });
  done(std::move(answer));
}

// c-ares' own timeouts.
void NameLookup::arm() {
  timeval wait{};
  if (channel_ == nullptr || ares_timeout(channel_, nullptr, &wait) == nullptr) return timeout_.cancel();
  const uint64_t wait_ns = static_cast<uint64_t>(wait.tv_sec) * kNsPerS + static_cast<uint64_t>(wait.tv_usec) * 1'000;
  timeout_.arm_at_ns(monotonic_ns() + wait_ns + kNsPerMs);
}

void NameLookup::on_socket(void* self, int fd, int readable, int writable) {
  auto& owner = *static_cast<NameLookup*>(self);
  const auto known = owner.sockets_.find(fd);
  if (readable == 0 && writable == 0) {
    if (known == owner.sockets_.end()) return;
    owner.loop_.remove(fd);
    // It is destroyed later, because it may be running now.
    std::shared_ptr<Socket> gone = std::move(known->second);
    owner.sockets_.erase(known);
    if (!owner.closing_) owner.loop_.defer([gone] {});
    return;
  }
  const uint32_t events = (readable != 0 ? EPOLLIN : 0U) | (writable != 0 ? EPOLLOUT : 0U);
  if (known != owner.sockets_.end()) return owner.loop_.modify(fd, events);
  auto socket = std::make_unique<Socket>(owner, fd);
  if (owner.loop_.add(fd, events, socket.get())) owner.sockets_.emplace(fd, std::move(socket));
}

}  // namespace tidegate
