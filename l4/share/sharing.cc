// SPDX-License-Identifier: Apache-2.0
#include "l4/share/sharing.h"

#include <fmt/format.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/assert.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/metrics.h"
#include "l4/dataplane.h"

namespace tidegate::l4 {
namespace {

constexpr uint64_t kBucketsPerRead = 2'048;  // 128 KB, which a worker reads in some ten microseconds
constexpr uint64_t kFewestBucketsPerTick = 256, kMostBucketsPerTick = 32'768;
constexpr const char* kUnreadMetric = "tidegate_l4_shared_datagrams_unread_total";
constexpr size_t kFlowsPerRead = 4'096;
constexpr size_t kLessonsPerRead = 256;  // two cache misses each
constexpr size_t kDatagramsPerTurn = 32;
constexpr uint64_t kHeartbeatNs = kNsPerS;
constexpr int kShareReceiveBytes = 1 << 20;  // room for what peers send in one tick
constexpr uint32_t kDatagramsPerTick = kMaxShareDatagrams * FlowSharing::kTickMs / 1'000;

std::string share_errno() { return std::strerror(errno); }

// A UDP socket at `listen`; connected to `peer` if there is one.
Result<UniqueFd> open_share_socket(const Endpoint& listen, const Endpoint* peer) {
  const int family = listen.address.is_v4() ? AF_INET : AF_INET6;
  UniqueFd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail(fmt::format("socket: {}", share_errno()));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kShareReceiveBytes, sizeof kShareReceiveBytes) != 0) {
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kShareReceiveBytes, sizeof kShareReceiveBytes);
  }
  sockaddr_storage address{};
  socklen_t length = listen.to_sockaddr(address);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    return fail(fmt::format("{}: {}", listen.to_string(), share_errno()));
  }
  if (peer == nullptr) return fd;
  length = peer->to_sockaddr(address);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    return fail(fmt::format("{} to {}: {}", listen.to_string(), peer->to_string(), share_errno()));
  }
  return fd;
}

uint64_t unread_of(int fd) {
  uint32_t info[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof info;
  return ::getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) == 0 ? info[SK_MEMINFO_DROPS] : 0;
}

}  // namespace

struct FlowSharing::Counters {
  Counter &told, &sent, &unsent, &received;
  std::array<Counter*, kShareFaults> refused{};
  Counter &learned, &renewed, &ended, &known, &no_room, &unknown_backend;

  Counters()
      : told(metrics().counter("tidegate_l4_shared_flows_told_total",
                               "Assured flows that the forwarders of the site were told about, in every round again")),
        sent(metrics().counter("tidegate_l4_shared_datagrams_sent_total", "Datagrams about flows sent to forwarders")),
        unsent(metrics().counter("tidegate_l4_shared_datagrams_unsent_total",
                                 "Datagrams about flows that could not be sent")),
        received(metrics().counter("tidegate_l4_shared_datagrams_received_total",
                                   "Datagrams about flows received, with those that were refused")),
        learned(heard("learned")),
        renewed(heard("renewed")),
        ended(heard("ended")),
        known(heard("known")),
        no_room(heard("no_room")),
        unknown_backend(heard("unknown_backend")) {
    for (size_t i = 1; i < kShareFaults; ++i) {
      refused[i] =
          &metrics().counter("tidegate_l4_shared_datagrams_refused_total", "Datagrams about flows refused, by reason",
                             {{"reason", std::string(name(static_cast<ShareFault>(i)))}});
    }
  }
  static Counter& heard(const char* outcome) {
    return metrics().counter("tidegate_l4_shared_flows_heard_total",
                             "Flows that forwarders of the site told about, by what came of it at each worker",
                             {{"outcome", outcome}});
  }
};

// The socket of one peer. It is taken out of the loop while its bound of this tick is used up.
struct FlowSharing::Peer final : private IoHandler {
  Peer(FlowSharing& owner, const Endpoint& endpoint, UniqueFd fd)
      : sharing(owner), at(endpoint), socket(std::move(fd)), key(share_key(owner.secret_, endpoint)) {
    resume();
  }
  ~Peer() { pause(); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void pause() {
    if (std::exchange(watched, false)) sharing.loop_.remove(socket.get());
  }
  void resume() {
    left = kDatagramsPerTick;
    if (!std::exchange(watched, true)) sharing.loop_.add(socket.get(), EPOLLIN, this);
  }
  void on_io(uint32_t) override {
    uint8_t datagram[kMostShareBytes + 1];
    for (size_t turn = 0; turn < kDatagramsPerTurn; ++turn) {
      if (left == 0) {
        pause();
        break;
      }
      --left;
      const ssize_t bytes = ::recv(socket.get(), datagram, sizeof datagram, 0);
      if (bytes >= 0) {
        sharing.hear(*this, datagram, static_cast<size_t>(bytes));
      } else if (errno != ECONNREFUSED) {  // an ICMP error about a datagram to the peer: the peer is not running
        break;
      }
    }
    sharing.take_lessons();
  }

  FlowSharing& sharing;
  Endpoint at;
  UniqueFd socket;
  std::string key;
  ReplayGuard guard;
  uint64_t heard_ns = 0;                // when a datagram last came; monotonic; 0: never
  uint64_t flows = 0;                   // flows that it has reported
  ShareFault fault = ShareFault::none;  // fault of its last datagram
  uint32_t left = 0;                    // datagrams that may still be read in this tick
  bool watched = false;
};

// Datagrams from addresses that are no peer's are counted and dropped.
class FlowSharing::Strangers final : private IoHandler {
 public:
  Strangers(FlowSharing& sharing, UniqueFd fd) : sharing_(sharing), socket_(std::move(fd)) { resume(); }
  ~Strangers() { pause(); }
  Strangers(const Strangers&) = delete;
  Strangers& operator=(const Strangers&) = delete;

  int fd() const { return socket_.get(); }
  void resume() {
    left_ = kDatagramsPerTick;
    if (!std::exchange(watched_, true)) sharing_.loop_.add(socket_.get(), EPOLLIN, this);
  }

 private:
  void pause() {
    if (std::exchange(watched_, false)) sharing_.loop_.remove(socket_.get());
  }
  void on_io(uint32_t) override {
    uint8_t none[1];
    for (size_t turn = 0; turn < kDatagramsPerTurn; ++turn) {
      if (left_ == 0) return pause();
      --left_;
      if (::recv(socket_.get(), none, sizeof none, 0) < 0) return;
      sharing_.counters_->received.add();
      sharing_.counters_->refused[static_cast<size_t>(ShareFault::stranger)]->add();
    }
  }

  FlowSharing& sharing_;
  UniqueFd socket_;
  uint32_t left_ = 0;
  bool watched_ = false;
};

FlowSharing::FlowSharing(EventLoop& loop, const std::string& secret)
    : loop_(loop),
      secret_(secret),
      name_key_(derive_hash_key(secret, "names of shared flows")),
      timer_(loop, [this] { tick(); }),
      counters_(std::make_unique<Counters>()) {
  metrics().collector([this](std::string& out) {
    out += fmt::format(
        "# HELP {0} Datagrams about flows that found no room in a socket's queue\n# TYPE {0} counter\n{0} {1}\n",
        kUnreadMetric, unread());
  });
}

FlowSharing::~FlowSharing() { close(); }

Result<void> FlowSharing::try_listen(const Endpoint& listen) {
  const Result<UniqueFd> opened = open_share_socket(listen, nullptr);
  if (!opened) return fail(fmt::format("share_flows: {}", opened.error().message));
  return {};
}

void FlowSharing::configure(const std::optional<ShareSettings>& settings) {
  if (settings == settings_ && problem_.empty()) return;
  close();
  settings_ = settings;
  problem_.clear();
  if (!settings) return;
  if (const Result<void> opened = open(*settings); !opened) {
    close();
    problem_ = fmt::format("flows are not shared: {}", opened.error().message);
    log_error("{}", problem_);
  }
}

Result<void> FlowSharing::open(const ShareSettings& settings) {
  Result<UniqueFd> any = open_share_socket(settings.listen, nullptr);
  if (!any) return any.error();
  strangers_ = std::make_unique<Strangers>(*this, std::move(*any));
  for (const Endpoint& peer : settings.peers) {
    Result<UniqueFd> socket = open_share_socket(settings.listen, &peer);
    if (!socket) return socket.error();
    peers_.push_back(std::make_unique<Peer>(*this, peer, std::move(*socket)));
  }
  key_ = share_key(secret_, settings.listen);
  // No two processes start in the same nanosecond, so their epochs differ.
  epoch_ = std::max(realtime_ns(), epoch_ + 1);
  sequence_ = 0;
  ticked_ns_ = monotonic_ns();
  sent_ns_ = 0;
  slice_.reserve(kFlowsPerRead + 3);
  lessons_.reserve(kDatagramsPerTurn * kMostSharedFlows);
  timer_.arm_after_ms(kTickMs);
  return {};
}

void FlowSharing::close() {
  unread_before_ = unread();
  timer_.cancel();
  peers_.clear();
  strangers_.reset();
  pending_count_ = 0;
}

void FlowSharing::use(const Dataplane* dataplane) {
  dataplane_ = dataplane;
  cursors_.assign(dataplane == nullptr ? 0 : dataplane->workers().size(), {});
  first_worker_ = 0;
}

void FlowSharing::learn_names(const KeptIds& ids) {
  words_.assign(kMaxBackends, 0);
  ids_.clear();
  for (const auto& [key, id] : ids.backends) {
    const uint64_t word = backend_word(name_key_, key);
    words_[index_of(id)] = word;
    ids_.emplace(word, id);
  }
  longest_timeout_ms_ = static_cast<uint32_t>(std::min<uint64_t>(ids.longest_timeout_ms, kMaxFlowTimeoutMs));
}

void FlowSharing::tick() {
  timer_.arm_after_ms(kTickMs);
  const uint64_t now_ns = monotonic_ns();
  // If the main thread was held up, it does not catch up for the whole time.
  const uint64_t elapsed_ms = std::min<uint64_t>((now_ns - ticked_ns_) / kNsPerMs, 2 * kTickMs);
  ticked_ns_ = now_ns;
  for (const auto& peer : peers_) peer->resume();
  strangers_->resume();
  if (dataplane_ != nullptr && !peers_.empty()) tell_flows(elapsed_ms);
  if (pending_count_ > 0 || (!peers_.empty() && now_ns - sent_ns_ >= kHeartbeatNs)) send_datagram();
}

void FlowSharing::tell_flows(uint64_t elapsed_ms) {
  const double earned = static_cast<double>(settings_->rate) * static_cast<double>(elapsed_ms) / 1'000;
  budget_ = std::min(budget_ + earned, 2 * earned + 1);
  // Connections that have ended are less important, and a flood can create many.
  ended_budget_ = static_cast<uint64_t>(budget_) / 4;
  for (size_t i = 0; i < cursors_.size(); ++i) tell_flows_of((first_worker_ + i) % cursors_.size(), elapsed_ms);
  first_worker_ = (first_worker_ + 1) % cursors_.size();
}

void FlowSharing::tell_flows_of(size_t worker, uint64_t elapsed_ms) {
  uint64_t& bucket = cursors_[worker].bucket;
  uint64_t buckets_left = kBucketsPerRead;  // until the size of the table is known
  bool knows_size = false, ended = false;
  while (buckets_left > 0 && budget_ >= 1 && !ended) {
    const uint64_t begun_at = bucket;
    uint32_t now_ms = 0;
    uint64_t bucket_count = 0;
    slice_.clear();
    dataplane_->workers()[worker]->read([&](const Decider& decider, uint32_t worker_now_ms) {
      now_ms = worker_now_ms;
      bucket_count = decider.flows().bucket_count();
      if (!knows_size) {
        buckets_left =
            std::clamp<uint64_t>(bucket_count * elapsed_ms / kShareRoundMs, kFewestBucketsPerTick, kMostBucketsPerTick);
      }
      const auto most = std::min(kFlowsPerRead, static_cast<size_t>(budget_));
      bucket =
          decider.flows().list(bucket, std::min(buckets_left, kBucketsPerRead), std::nullopt, most, now_ms, slice_);
    });
    knows_size = true;
    buckets_left -= std::min(buckets_left, bucket - begun_at);
    for (const FlowEntry& flow : slice_) add_flow(flow, now_ms);
    ended = bucket >= bucket_count;
    if (ended) bucket = 0;
  }
}

void FlowSharing::add_flow(const FlowEntry& flow, uint32_t now_ms) {
  const bool closing = flow.state == FlowState::closing;
  if (flow.shared != 0 || (!flow.assured() && !closing)) return;
  if (closing && ended_budget_ == 0) return;
  const uint64_t word = index_of(flow.backend) < words_.size() ? words_[index_of(flow.backend)] : 0;
  if (word == 0) return;
  if (closing) --ended_budget_;
  budget_ -= 1;
  pending_[pending_count_++] = {flow.hash, word, closing ? 0 : flow.expires_ms - now_ms};
  counters_->told.add();
  if (pending_count_ == kMostSharedFlows) send_datagram();
}

void FlowSharing::send_datagram() {
  uint8_t datagram[kMostShareBytes];
  const ShareHead head{epoch_, ++sequence_, realtime_ns() / kNsPerMs};
  const size_t bytes = seal_flows(key_, head, pending_.data(), std::exchange(pending_count_, 0), datagram);
  for (const auto& peer : peers_) {
    // The first call after an ICMP error reports that error, and sends nothing.
    ssize_t sent = ::send(peer->socket.get(), datagram, bytes, 0);
    if (sent < 0 && errno == ECONNREFUSED) sent = ::send(peer->socket.get(), datagram, bytes, 0);
    (sent < 0 ? counters_->unsent : counters_->sent).add();
  }
  sent_ns_ = monotonic_ns();
}

void FlowSharing::hear(Peer& peer, const uint8_t* datagram, size_t bytes) {
  std::array<SharedFlow, kMostSharedFlows> flows;
  const ShareClock now{realtime_ns() / kNsPerMs, monotonic_ns() / kNsPerMs};
  const OpenedFlows opened = open_flows(peer.key, datagram, bytes, now, peer.guard, flows.data());
  counters_->received.add();
  peer.fault = opened.fault;
  if (opened.fault != ShareFault::none) return counters_->refused[static_cast<size_t>(opened.fault)]->add();
  peer.heard_ns = monotonic_ns();
  peer.flows += opened.count;
  if (dataplane_ == nullptr) return;
  const ForwardingTables& tables = *dataplane_->tables();
  for (size_t i = 0; i < opened.count; ++i) {
    const auto known = ids_.find(flows[i].backend);
    // The id of a backend that no table contains any more may soon mean another one.
    if (known == ids_.end() || flows[i].hash == 0 || tables.backend(known->second).keeping == 0) {
      counters_->unknown_backend.add();
      continue;
    }
    lessons_.push_back({flows[i].hash, known->second, std::min(flows[i].left_ms, longest_timeout_ms_)});
  }
}

// Any worker may get the packets of a flow, so each of them learns it.
void FlowSharing::take_lessons() {
  if (lessons_.empty()) return;
  LessonCounts counts;
  for (const auto& worker : dataplane_->workers()) {
    for (size_t at = 0; at < lessons_.size(); at += kLessonsPerRead) {
      const size_t count = std::min(kLessonsPerRead, lessons_.size() - at);
      worker->read([&](Decider& decider, uint32_t now_ms) { decider.learn(&lessons_[at], count, now_ms, counts); });
    }
  }
  lessons_.clear();
  counters_->learned.add(counts.of(Lesson::learned));
  counters_->renewed.add(counts.of(Lesson::renewed));
  counters_->ended.add(counts.of(Lesson::ended));
  counters_->known.add(counts.of(Lesson::known));
  counters_->no_room.add(counts.of(Lesson::no_room));
}

uint64_t FlowSharing::unread() const {
  uint64_t total = unread_before_;
  for (const auto& peer : peers_) total += unread_of(peer->socket.get());
  if (strangers_) total += unread_of(strangers_->fd());
  return total;
}

nlohmann::json FlowSharing::status() const {
  if (!settings_) return nullptr;
  const uint64_t now_ns = monotonic_ns();
  nlohmann::json peers = nlohmann::json::array();
  for (const auto& peer : peers_) {
    peers.push_back({{"address", peer->at.to_string()},
                     {"heard_ms_ago",
                      peer->heard_ns == 0 ? nlohmann::json() : nlohmann::json((now_ns - peer->heard_ns) / kNsPerMs)},
                     {"flows_told", peer->flows},
                     {"refused", peer->fault == ShareFault::none ? "" : sentence(peer->fault)}});
  }
  return {{"listen", settings_->listen.to_string()}, {"problem", problem_}, {"peers", std::move(peers)}};
}

}  // namespace tidegate::l4
