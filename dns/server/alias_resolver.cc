// SPDX-License-Identifier: Apache-2.0
#include "dns/server/alias_resolver.h"

#include <arpa/nameser.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/clock.h"
#include "core/log.h"
#include "dns/limits.h"

namespace tidegate::dns {
namespace {

constexpr uint64_t kTogetherMs = 20;  // answers that come within this time make one change
constexpr uint32_t kShortestS = 1, kLongestS = 3'600, kNegativeS = 30, kStaleTtlS = 30;
constexpr uint64_t kStaleNs = 24 * 3'600 * kNsPerS;
constexpr uint64_t kFirstRetryS = 1, kLastRetryS = 60;
constexpr int kTimeoutMs = 2'000, kTries = 3;

}  // namespace

struct AliasResolver::Lookup {
  AliasResolver& owner;
  std::string name;
  IpAddress::Family family;
  uint64_t due_ns = 0;    // monotonic; of the next lookup
  uint64_t fresh_ns = 0;  // when it last succeeded; 0: never
  uint64_t retry_s = kFirstRetryS;
  bool under_way = false;
  bool dropped = false;  // nobody follows it any more; it goes with its answer
};

// A socket of c-ares in the loop.
class AliasResolver::Socket final : public IoHandler {
 public:
  Socket(AliasResolver& owner, ares_socket_t fd) : owner_(owner), fd_(fd) {}
  void on_io(uint32_t events) override {
    AliasResolver& owner = owner_;  // c-ares may end the socket, and this with it
    const ares_socket_t fd = fd_;
    const bool readable = (events & ~static_cast<uint32_t>(EPOLLOUT)) != 0, writable = (events & EPOLLOUT) != 0;
    ares_process_fd(owner.channel_, readable ? fd : ARES_SOCKET_BAD, writable ? fd : ARES_SOCKET_BAD);
    owner.run_due();
  }

 private:
  AliasResolver& owner_;
  ares_socket_t fd_;
};

AliasResolver::AliasResolver(EventLoop& loop, std::function<void()> on_change)
    : loop_(loop),
      on_change_(std::move(on_change)),
      due_(loop,
           [this] {
             if (channel_ != nullptr) ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // its timeouts
             run_due();
           }),
      changed_(loop, [this] { on_change_(); }) {
  ares_library_init(ARES_LIB_INIT_ALL);
}

AliasResolver::~AliasResolver() {
  close_channel();
  ares_library_cleanup();
}

bool AliasResolver::open_channel(const std::vector<Endpoint>& resolvers) {
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
    log_error("aliases cannot be looked up: {}", ares_strerror(status));
    return false;
  }
  if (resolvers.empty()) return true;
  std::string list;
  for (const Endpoint& each : resolvers) list += (list.empty() ? "" : ",") + each.to_string();
  if (const int status = ares_set_servers_ports_csv(channel_, list.c_str()); status != ARES_SUCCESS) {
    log_error("resolvers {}: {}", list, ares_strerror(status));
  }
  return true;
}

// Ends what is under way: each lookup hears of it.
void AliasResolver::close_channel() {
  if (channel_ != nullptr) ares_destroy(channel_);
  channel_ = nullptr;
  sockets_.clear();
}

void AliasResolver::follow(const std::vector<std::string>& names, const std::vector<Endpoint>& resolvers) {
  if (resolvers != resolvers_) close_channel();
  resolvers_ = resolvers;
  bool forgot = false;
  for (auto at = lookups_.begin(); at != lookups_.end();) {
    if (std::binary_search(names.begin(), names.end(), at->first.first)) {
      at->second->dropped = false;
      ++at;
      continue;
    }
    forgot |= book_.erase(at->first.first) != 0;
    if (at->second->under_way) {
      at->second->dropped = true;
      ++at;
    } else {
      at = lookups_.erase(at);
    }
  }
  for (const std::string& name : names) {
    for (const auto family : {IpAddress::Family::v4, IpAddress::Family::v6}) {
      auto& lookup = lookups_[{name, family}];
      if (!lookup) lookup.reset(new Lookup{*this, name, family});
    }
  }
  if (!names.empty() && channel_ == nullptr && !open_channel(resolvers)) return;
  if (names.empty()) close_channel();
  if (forgot) changed_.arm_after_ms(0);
  run_due();
}

// Starts the lookups that are due, at most kMaxAliasLookups at one time. The one that is due longest comes first.
void AliasResolver::run_due() {
  if (channel_ == nullptr) return;
  const uint64_t now = monotonic_ns();
  std::vector<Lookup*> due;
  for (const auto& [key, lookup] : lookups_) {
    if (!lookup->under_way && lookup->due_ns <= now) due.push_back(lookup.get());
  }
  std::sort(due.begin(), due.end(), [](const Lookup* a, const Lookup* b) { return a->due_ns < b->due_ns; });
  for (Lookup* const lookup : due) {
    if (under_way_ >= kMaxAliasLookups) break;
    start(*lookup);
  }
  settle();
}

void AliasResolver::start(Lookup& lookup) {
  lookup.under_way = true;
  ++under_way_;
  ares_query(channel_, lookup.name.c_str(), ns_c_in, lookup.family == IpAddress::Family::v4 ? ns_t_a : ns_t_aaaa,
             on_answer, &lookup);
}

void AliasResolver::on_answer(void* lookup, int status, int, unsigned char* message, int bytes) {
  auto& answered = *static_cast<Lookup*>(lookup);
  answered.owner.answered(answered, status, message, bytes);
}

namespace {

// The addresses of an answer, and the smallest TTL on the way to them.
template <class Ttl, class Parse>
int read_addresses(AliasAddresses::Of& found, const unsigned char* message, int bytes, Parse parse) {
  std::array<Ttl, kMaxAliasAddresses> records;
  int count = static_cast<int>(records.size());
  const int status = parse(message, bytes, nullptr, records.data(), &count);
  if (status != ARES_SUCCESS) return status;
  found.ttl_s = kLongestS;
  for (int i = 0; i < count; ++i) {
    std::array<uint8_t, 16>& address = found.addresses.emplace_back();
    if constexpr (std::is_same_v<Ttl, ares_addrttl>) {
      std::memcpy(address.data(), &records[static_cast<size_t>(i)].ipaddr, 4);
    } else {
      std::memcpy(address.data(), &records[static_cast<size_t>(i)].ip6addr, 16);
    }
    const int ttl = std::max(records[static_cast<size_t>(i)].ttl, 0);
    found.ttl_s = std::min(found.ttl_s, static_cast<uint32_t>(ttl));
  }
  std::sort(found.addresses.begin(), found.addresses.end());
  found.addresses.erase(std::unique(found.addresses.begin(), found.addresses.end()), found.addresses.end());
  return ARES_SUCCESS;
}

}  // namespace

void AliasResolver::answered(Lookup& lookup, int status, const unsigned char* message, int bytes) {
  lookup.under_way = false;
  --under_way_;
  if (lookup.dropped) {
    lookups_.erase({lookup.name, lookup.family});
    return;
  }
  if (status == ARES_EDESTRUCTION) {  // the channel was closed: by another one, at once
    lookup.due_ns = 0;
    return;
  }
  AliasAddresses::Of found;
  found.known = true;
  if (status == ARES_SUCCESS) {
    status = lookup.family == IpAddress::Family::v4
                 ? read_addresses<ares_addrttl>(found, message, bytes, ares_parse_a_reply)
                 : read_addresses<ares_addr6ttl>(found, message, bytes, ares_parse_aaaa_reply);
  }
  const bool none =
      status == ARES_ENODATA || status == ARES_ENOTFOUND || (status == ARES_SUCCESS && found.addresses.empty());
  if (status != ARES_SUCCESS && !none) return failed(lookup);
  if (none) found = {true, kNegativeS, {}};
  ++(none ? counts_.empty : counts_.found);
  lookup.fresh_ns = monotonic_ns();
  lookup.retry_s = kFirstRetryS;
  lookup.due_ns = lookup.fresh_ns + std::max(found.ttl_s, kShortestS) * kNsPerS;
  store(lookup, std::move(found));
}

void AliasResolver::failed(Lookup& lookup) {
  ++counts_.failed;
  const uint64_t now = monotonic_ns();
  lookup.due_ns = now + lookup.retry_s * kNsPerS;
  lookup.retry_s = std::min(lookup.retry_s * 2, kLastRetryS);
  const auto known = book_.find(lookup.name);
  if (lookup.fresh_ns == 0 || known == book_.end()) return;
  if (now - lookup.fresh_ns > kStaleNs) {
    lookup.fresh_ns = 0;
    return store(lookup, {});
  }
  AliasAddresses::Of stale = known->second.of(lookup.family);
  stale.ttl_s = std::min(stale.ttl_s, kStaleTtlS);
  store(lookup, std::move(stale));
}

void AliasResolver::store(const Lookup& lookup, AliasAddresses::Of&& found) {
  AliasAddresses& all = book_[lookup.name];
  AliasAddresses::Of& mine = lookup.family == IpAddress::Family::v4 ? all.v4 : all.v6;
  if (mine == found) return;
  mine = std::move(found);
  if (!changed_.armed()) changed_.arm_after_ms(kTogetherMs);
}

void AliasResolver::settle() {
  uint64_t next = UINT64_MAX;
  for (const auto& [key, lookup] : lookups_) {
    if (!lookup->under_way && under_way_ < kMaxAliasLookups) next = std::min(next, lookup->due_ns);
  }
  timeval wait{};
  if (channel_ != nullptr && ares_timeout(channel_, nullptr, &wait) != nullptr) {
    const uint64_t wait_ns = static_cast<uint64_t>(wait.tv_sec) * kNsPerS + static_cast<uint64_t>(wait.tv_usec) * 1'000;
    next = std::min(next, monotonic_ns() + wait_ns + 1'000'000);
  }
  due_.arm_at_ns(next);
}

void AliasResolver::on_socket(void* self, ares_socket_t fd, int readable, int writable) {
  auto& owner = *static_cast<AliasResolver*>(self);
  const auto known = owner.sockets_.find(fd);
  if (readable == 0 && writable == 0) {
    if (known == owner.sockets_.end()) return;
    owner.loop_.remove(fd);
    // It may be what is running now.
    std::shared_ptr<Socket> gone = std::move(known->second);
    owner.sockets_.erase(known);
    owner.loop_.defer([gone] {});
    return;
  }
  const uint32_t events = (readable != 0 ? EPOLLIN : 0U) | (writable != 0 ? EPOLLOUT : 0U);
  if (known != owner.sockets_.end()) return owner.loop_.modify(fd, events);
  auto socket = std::make_unique<Socket>(owner, fd);
  if (owner.loop_.add(fd, events, socket.get())) owner.sockets_.emplace(fd, std::move(socket));
}

}  // namespace tidegate::dns
