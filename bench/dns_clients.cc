// SPDX-License-Identifier: Apache-2.0
// A DNS load generator, because no packaged one fits. It keeps a window of outstanding queries with the latency of
// each, can send a different ECS with each query, and sends in batches so that its own cost stays below the server's.
//
//  dns_clients ADDRESS:PORT SECONDS NAMES_FILE [ecs]
//    asks for A of the names in turn; the file has one name per line
//    prints: answered, seconds, p50_us, p99_us, lost
// With `ecs` every query carries its own client subnet from 10.0.0.0/8 (RFC 7871).
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/ip.h"

namespace {

using tidegate::Endpoint;
using tidegate::monotonic_ns;

constexpr unsigned kSockets = 8;
constexpr unsigned kWindow = 16;  // outstanding queries per socket, and the largest batch
constexpr uint64_t kLostAfterNs = 200'000'000;
constexpr size_t kWorstUs = 1'000'000;

using Query = std::vector<uint8_t>;

Query encode(const std::string& name, uint32_t subnet, bool ecs) {
  Query query{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, static_cast<uint8_t>(ecs ? 1 : 0)};
  for (size_t from = 0; from < name.size();) {
    const size_t dot = std::min(name.find('.', from), name.size());
    query.push_back(static_cast<uint8_t>(dot - from));
    query.insert(query.end(), name.begin() + static_cast<ptrdiff_t>(from), name.begin() + static_cast<ptrdiff_t>(dot));
    from = dot + 1;
  }
  query.insert(query.end(), {0, 0, 1, 0, 1});
  if (ecs) {
    // OPT of 1232 bytes with one option: code 8, family 1, a /24.
    query.insert(query.end(), {0,
                               0,
                               41,
                               4,
                               208,
                               0,
                               0,
                               0,
                               0,
                               0,
                               11,
                               0,
                               8,
                               0,
                               7,
                               0,
                               1,
                               24,
                               0,
                               10,
                               static_cast<uint8_t>(subnet >> 8),
                               static_cast<uint8_t>(subnet)});
  }
  return query;
}

// One connected socket and the send times of its outstanding queries. The id of a query is its slot.
struct Client {
  int fd = -1;
  std::array<uint64_t, kWindow> sent_ns{};  // 0: the slot is free
};

class Generator {
 public:
  Generator(const Endpoint& server, std::vector<Query> queries) : queries_(std::move(queries)), latency_us_(kWorstUs) {
    sockaddr_storage storage;
    const socklen_t length = server.to_sockaddr(storage);
    for (Client& client : clients_) {
      client.fd = ::socket(storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
      if (client.fd < 0 || ::connect(client.fd, reinterpret_cast<sockaddr*>(&storage), length) != 0) {
        std::perror("dns_clients: connect");
        std::exit(1);
      }
    }
  }

  void run(uint64_t seconds) {
    const uint64_t began_ns = monotonic_ns();
    const uint64_t until_ns = began_ns + seconds * tidegate::kNsPerS;
    uint64_t now_ns = began_ns;
    for (; now_ns < until_ns; now_ns = monotonic_ns()) {
      for (Client& client : clients_) {
        fill(client, now_ns);
        drain(client);
      }
    }
    report(static_cast<double>(now_ns - began_ns) / 1e9);
  }

 private:
  void fill(Client& client, uint64_t now_ns) {
    unsigned batch = 0;
    for (unsigned slot = 0; slot < kWindow; ++slot) {
      if (client.sent_ns[slot] != 0) {
        if (now_ns - client.sent_ns[slot] < kLostAfterNs) continue;
        ++lost_;
      }
      client.sent_ns[slot] = now_ns;
      Query& query = queries_[next_++ % queries_.size()];
      std::memcpy(buffers_[batch].data(), query.data(), query.size());
      buffers_[batch][0] = 0;
      buffers_[batch][1] = static_cast<uint8_t>(slot);
      vectors_[batch] = {buffers_[batch].data(), query.size()};
      messages_[batch] = {};
      messages_[batch].msg_hdr.msg_iov = &vectors_[batch];
      messages_[batch].msg_hdr.msg_iovlen = 1;
      ++batch;
    }
    if (batch > 0) ::sendmmsg(client.fd, messages_.data(), batch, 0);
  }

  void drain(Client& client) {
    for (unsigned i = 0; i < kWindow; ++i) {
      vectors_[i] = {buffers_[i].data(), buffers_[i].size()};
      messages_[i] = {};
      messages_[i].msg_hdr.msg_iov = &vectors_[i];
      messages_[i].msg_hdr.msg_iovlen = 1;
    }
    const int got = ::recvmmsg(client.fd, messages_.data(), kWindow, MSG_DONTWAIT, nullptr);
    if (got <= 0) return;
    const uint64_t now_ns = monotonic_ns();
    for (unsigned i = 0; i < static_cast<unsigned>(got); ++i) {
      const unsigned slot = buffers_[i][1];
      if (messages_[i].msg_len < 12 || slot >= kWindow || client.sent_ns[slot] == 0) continue;
      ++latency_us_[std::min<size_t>((now_ns - client.sent_ns[slot]) / 1000, kWorstUs - 1)];
      ++answered_;
      client.sent_ns[slot] = 0;
    }
  }

  size_t percentile(size_t percent) const {
    size_t seen = 0;
    for (size_t us = 0; us < kWorstUs; ++us) {
      if ((seen += latency_us_[us]) * 100 >= answered_ * percent) return us;
    }
    return kWorstUs;
  }

  void report(double seconds) const {
    std::printf("%lu %.3f %zu %zu %lu\n", answered_, seconds, percentile(50), percentile(99), lost_);
  }

  std::vector<Query> queries_;
  std::array<Client, kSockets> clients_;
  std::vector<uint64_t> latency_us_;
  std::array<std::array<uint8_t, 4096>, kWindow> buffers_{};
  std::array<iovec, kWindow> vectors_{};
  std::array<mmsghdr, kWindow> messages_{};
  uint64_t next_ = 0, answered_ = 0, lost_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const auto server = argc >= 4 ? Endpoint::parse(argv[1]) : std::nullopt;
  if (!server) {
    std::fprintf(stderr, "usage: dns_clients ADDRESS:PORT SECONDS NAMES_FILE [ecs]\n");
    return 2;
  }
  const bool ecs = argc > 4;
  std::vector<Query> queries;
  std::ifstream names(argv[3]);
  for (std::string name; std::getline(names, name);)
    queries.push_back(encode(name, static_cast<uint32_t>(queries.size() * 40503), ecs));
  if (queries.empty()) {
    std::fprintf(stderr, "dns_clients: %s names nothing\n", argv[3]);
    return 2;
  }
  Generator(*server, std::move(queries)).run(static_cast<uint64_t>(std::atoll(argv[2])));
}
