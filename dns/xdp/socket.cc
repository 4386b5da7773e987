// SPDX-License-Identifier: Apache-2.0
#include "dns/xdp/socket.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dns/xdp/program.h"

namespace tidegate::dns {
namespace {

// Each answer in progress counts with the size of the kernel's buffer for it, headers included.
constexpr int kSendBufferBytes = 8 << 20;

// The kernel reserves the first XDP_PACKET_HEADROOM bytes of a frame's memory. The rest has room for any answer, and
// for any query that the program lets through.
static_assert(XdpRings::kFrameBytes - XDP_PACKET_HEADROOM >= std::max(kMaxAnswerFrameBytes, kMaxQueryFrameBytes));

}  // namespace

Result<std::unique_ptr<XdpSocket>> XdpSocket::open(const std::string& interface, uint32_t queue) {
  const auto failed = [&](const char* what, int error) {
    return fail(fmt::format("{} of queue {}: {}", what, queue, std::strerror(error)));
  };
  std::unique_ptr<XdpSocket> opened(new XdpSocket);
  XdpRings& rings = opened->rings_;
  void* memory = ::mmap(nullptr, XdpRings::kMemoryBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return failed("memory", errno);
  opened->memory_ = memory;
  rings.memory = static_cast<uint8_t*>(memory);
  const xsk_umem_config umem{.fill_size = XdpRings::kFrames,
                             .comp_size = XdpRings::kFrames,
                             .frame_size = XdpRings::kFrameBytes,
                             .frame_headroom = 0,
                             .flags = 0};
  int status = xsk_umem__create(&opened->umem_, memory, XdpRings::kMemoryBytes, &rings.fill, &rings.completion, &umem);
  if (status != 0) return failed("the shared memory", -status);
  xsk_socket_config socket{};
  socket.rx_size = XdpRings::kFrames;
  socket.tx_size = XdpRings::kFrames;
  socket.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
  socket.bind_flags = XDP_USE_NEED_WAKEUP;  // zero-copy if the driver can, otherwise the kernel copies
  status = xsk_socket__create(&opened->socket_, interface.c_str(), queue, opened->umem_, &rings.received,
                              &rings.to_send, &socket);
  if (status != 0) return failed("the socket", -status);
  const int fd = opened->fd();
  if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSendBufferBytes, sizeof kSendBufferBytes) != 0) {
    return failed("the send buffer", errno);
  }
  xdp_options options{};
  socklen_t bytes = sizeof options;
  opened->zero_copy_ =
      ::getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &bytes) == 0 && (options.flags & XDP_OPTIONS_ZEROCOPY) != 0;
  rings.hand_out_frames();
  return opened;
}

XdpSocket::~XdpSocket() {
  if (socket_ != nullptr) xsk_socket__delete(socket_);
  if (umem_ != nullptr) xsk_umem__delete(umem_);
  if (memory_ != nullptr) ::munmap(memory_, XdpRings::kMemoryBytes);
}

uint64_t XdpSocket::overruns() const {
  xdp_statistics counted{};
  socklen_t bytes = sizeof counted;
  if (::getsockopt(fd(), SOL_XDP, XDP_STATISTICS, &counted, &bytes) != 0) return 0;
  return counted.rx_dropped + counted.rx_ring_full + counted.rx_fill_ring_empty_descs;
}

uint32_t XdpSocket::serve(const Tables& tables, Worker& worker) {
  rings_.recycle();
  const uint32_t taken = rings_.serve(
      [&](std::span<uint8_t> room, size_t frame_bytes) { return answer_frame(room, frame_bytes, tables, worker); });
  Tally::add(tally_.received, taken);
  if (xsk_ring_prod__needs_wakeup(&rings_.fill) != 0) ::recvfrom(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
  if (rings_.unsent() > 0) send();
  return taken;
}

size_t XdpSocket::answer_frame(std::span<uint8_t> room, size_t frame_bytes, const Tables& tables, Worker& worker) {
  QueryFrame query;
  const FrameFault fault = parse_query_frame(room.first(frame_bytes), query);
  if (fault != FrameFault::none) {
    Tally::add(tally_.faults[static_cast<size_t>(fault)]);
    return 0;
  }
  const size_t bytes = answer(room.subspan(query.headers_bytes, query.query_bytes), answer_,
                              {query.client, QueryTransport::udp}, tables, worker);
  if (bytes == 0) return 0;
  std::memcpy(room.data() + query.headers_bytes, answer_.data(), bytes);
  Tally::add(tally_.answered);
  return turn_into_answer(room.data(), query, bytes, identification_++);
}

// A driver that sends by itself clears the need for a call. If the kernel copies, one call takes a few dozen frames.
void XdpSocket::send() {
  if (xsk_ring_prod__needs_wakeup(&rings_.to_send) == 0) return;
  for (uint32_t before = rings_.unsent(); before > 0;) {
    const ssize_t status = ::sendto(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0);
    const int error = errno;
    const uint32_t after = rings_.unsent();
    if (status < 0 && (error != EAGAIN || after == before)) Tally::add(tally_.send_failed);
    if (status >= 0 || after == before) return;
    before = after;
  }
}

}  // namespace tidegate::dns
