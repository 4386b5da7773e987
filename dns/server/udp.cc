// SPDX-License-Identifier: Apache-2.0
#include "dns/server/udp.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"
#include "dns/listening_socket.h"

namespace tidegate::dns {
namespace {

constexpr unsigned kBatch = 16;
constexpr size_t kMaxQueryBytes = 2'048;     // a name, and an OPT with room for padding; nothing longer is a query
constexpr int kSocketBufferBytes = 4 << 20;  // enough for some 10 ms of overload
constexpr int kLastBatches = 256;            // the most batches that are answered after stop()
constexpr size_t kControlBytes = CMSG_SPACE(sizeof(in6_pktinfo));

bool set_option(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

const int kWakeSignal = SIGRTMIN;  // interrupts recvmmsg(2)

// Faults of one datagram or one moment, not of the socket.
bool is_passing(int error) {
  return error == EINTR || error == EAGAIN || error == ECONNREFUSED || error == ENOMEM || error == ENOBUFS;
}

// Turns the kernel's information about where a datagram arrived into the information about where the answer must be
// sent from.
void reverse_packet_info(msghdr& message) {
  cmsghdr* control = CMSG_FIRSTHDR(&message);
  if (control == nullptr) {
    message.msg_controllen = 0;
    return;
  }
  if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
    in_pktinfo info;
    std::memcpy(&info, CMSG_DATA(control), sizeof info);
    info.ipi_spec_dst = info.ipi_addr;
    info.ipi_ifindex = 0;  // routing decides, as for any answer
    std::memcpy(CMSG_DATA(control), &info, sizeof info);
  } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
    in6_pktinfo info;
    std::memcpy(&info, CMSG_DATA(control), sizeof info);
    if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) info.ipi6_ifindex = 0;
    std::memcpy(CMSG_DATA(control), &info, sizeof info);
  }
}

}  // namespace

// Everything that a batch touches, allocated once.
struct UdpServer::Batch {
  std::array<mmsghdr, kBatch> in{};
  std::array<mmsghdr, kBatch> out{};
  std::array<iovec, kBatch> in_vectors{};
  std::array<iovec, kBatch> out_vectors{};
  std::array<sockaddr_storage, kBatch> peers{};
  alignas(cmsghdr) std::array<std::array<uint8_t, kControlBytes>, kBatch> control{};
  std::array<std::array<uint8_t, kMaxQueryBytes>, kBatch> queries{};
  std::array<std::array<uint8_t, kMaxUdpPayload>, kBatch> answers{};

  void prepare(bool wildcard) {
    for (unsigned i = 0; i < kBatch; ++i) {
      in_vectors[i] = {queries[i].data(), kMaxQueryBytes};
      msghdr& message = in[i].msg_hdr;
      message = {};
      message.msg_name = &peers[i];
      message.msg_namelen = sizeof peers[i];
      message.msg_iov = &in_vectors[i];
      message.msg_iovlen = 1;
      message.msg_control = wildcard ? control[i].data() : nullptr;
      message.msg_controllen = wildcard ? kControlBytes : 0;
    }
  }
};

UdpServer::UdpServer(const Endpoint& endpoint, TablesSlot& slot, Worker& worker)
    : endpoint_(endpoint), slot_(slot), worker_(worker), wildcard_(is_wildcard(endpoint.address)) {}

Result<std::unique_ptr<UdpServer>> UdpServer::bind(const Endpoint& endpoint, TablesSlot& slot, Worker& worker,
                                                   HeldPorts& held) {
  auto socket = bind_socket(endpoint, SOCK_DGRAM, held);
  if (!socket) return socket.error();
  std::unique_ptr<UdpServer> server(new UdpServer(endpoint, slot, worker));
  const int fd = socket->get();
  const bool v6 = endpoint.address.is_v6();
  if (server->wildcard_ &&
      !(v6 ? set_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) : set_option(fd, IPPROTO_IP, IP_PKTINFO, 1))) {
    return fail(fmt::format("packet info on {}: {}", endpoint.to_string(), std::strerror(errno)));
  }
  // Answers are small enough for any path. A forged "fragmentation needed" must not make them smaller (RFC 9715 §3.1).
  v6 ? set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_OMIT)
     : set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT);
  // As far as the host's limits allow; otherwise the default stays.
  set_option(fd, SOL_SOCKET, SO_RCVBUF, kSocketBufferBytes);
  set_option(fd, SOL_SOCKET, SO_SNDBUF, kSocketBufferBytes);
  server->endpoint_ = local_endpoint(fd);
  server->socket_ = std::move(*socket);
  return server;
}

UdpServer::~UdpServer() { stop(); }

void UdpServer::start() {
  thread_ = start_thread("dns-udp", [this] { run(); });
}

void UdpServer::stop() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_release);
  // Fails with ENOTCONN, but marks the socket, and wakes the thread out of recvmmsg, now or when it next blocks.
  ::shutdown(socket_.get(), SHUT_RD);
  thread_.join();
}

// shutdown(2) would also stop the other process from receiving. A signal wakes only this thread. A signal that comes
// between the thread's check of stop_ and its system call is lost, so the signal is repeated.
void UdpServer::leave() {
  if (!thread_.joinable()) return;
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(kWakeSignal, &action, nullptr);
  stop_.store(true, std::memory_order_release);
  while (!ended_.load(std::memory_order_acquire)) {
    ::pthread_kill(thread_.native_handle(), kWakeSignal);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  thread_.join();
}

void UdpServer::run() {
  receive_until_stopped();
  ended_.store(true, std::memory_order_release);
}

void UdpServer::receive_until_stopped() {
  const auto batch = std::make_unique<Batch>();
  while (!stop_.load(std::memory_order_acquire)) {
    if (receive(*batch, MSG_WAITFORONE) < 0 && !is_passing(errno)) {
      log_error("UDP on {} ends: {}", endpoint_.to_string(), std::strerror(errno));
      return;
    }
  }
  // Queries that came before the end are answered, so that clients of a closing listener need not ask twice.
  for (int i = 0; i < kLastBatches && receive(*batch, MSG_DONTWAIT) > 0; ++i) {
  }
}

int UdpServer::receive(Batch& batch, int flags) {
  batch.prepare(wildcard_);
  const int received = ::recvmmsg(socket_.get(), batch.in.data(), kBatch, flags, nullptr);
  if (received > 0) serve_batch(batch, static_cast<unsigned>(received));
  return received;
}

void UdpServer::serve_batch(Batch& batch, unsigned received) {
  const PinnedTables tables(slot_);
  if (tables.get() == nullptr) return;
  worker_.now_s = static_cast<uint32_t>(clock_ns(CLOCK_REALTIME_COARSE) / kNsPerS);
  unsigned answers = 0;
  for (unsigned i = 0; i < received; ++i) {
    msghdr& message = batch.in[i].msg_hdr;
    if (message.msg_namelen == 0) continue;  // the wake-up of stop()
    if ((message.msg_flags & MSG_TRUNC) != 0) {
      Tally::add(tally_.oversized);
      continue;
    }
    const Endpoint peer = Endpoint::from(batch.peers[i]);
    if (peer.port == 0) {
      Tally::add(tally_.unanswerable);
      continue;
    }
    const Client client{peer.address, QueryTransport::udp};
    const size_t bytes =
        answer({batch.queries[i].data(), batch.in[i].msg_len}, batch.answers[i], client, *tables.get(), worker_);
    if (bytes == 0) continue;
    batch.out_vectors[i] = {batch.answers[i].data(), bytes};
    if (wildcard_) reverse_packet_info(message);
    batch.out[answers].msg_hdr = message;
    batch.out[answers].msg_hdr.msg_iov = &batch.out_vectors[i];
    batch.out[answers].msg_hdr.msg_flags = 0;
    ++answers;
  }
  send_batch(batch, answers);
}

void UdpServer::send_batch(Batch& batch, unsigned answers) {
  for (unsigned sent = 0; sent < answers;) {
    const int count = ::sendmmsg(socket_.get(), &batch.out[sent], answers - sent, MSG_DONTWAIT);
    if (count > 0) {
      sent += static_cast<unsigned>(count);
    } else if (errno != EINTR) {
      // The kernel did not accept the first of the rest, so its client must ask again. The others may still be sent.
      Tally::add(tally_.send_failed);
      ++sent;
    }
  }
}

}  // namespace tidegate::dns
