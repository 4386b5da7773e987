// SPDX-License-Identifier: Apache-2.0
// XdpSocket: one receive queue of an interface. Its frames come directly into our memory, and our answers are sent from
// there.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "core/result.h"
#include "dns/query/query.h"
#include "dns/xdp/frame.h"
#include "dns/xdp/rings.h"

namespace tidegate::dns {

// Frames that were not handled by answer(). Only the socket's thread writes it.
struct XdpTally {
  Tally::Count received{0};
  Tally::Count answered{0};
  Tally::Count send_failed{0};  // how often the kernel did not send a frame; it is tried again
  std::array<Tally::Count, kFrameFaultCount> faults{};
};

class XdpSocket {
 public:
  static Result<std::unique_ptr<XdpSocket>> open(const std::string& interface, uint32_t queue);
  ~XdpSocket();
  XdpSocket(const XdpSocket&) = delete;
  XdpSocket& operator=(const XdpSocket&) = delete;

  int fd() const { return xsk_socket__fd(socket_); }
  bool zero_copy() const { return zero_copy_; }  // the network card writes and reads our memory itself
  // Frames that the kernel had for us but could not deliver, because too many came at once. Any thread.
  uint64_t overruns() const;

  // For the thread that serves this socket. Answers a batch of received frames and sends the answers. Returns how many
  // frames there were.
  uint32_t serve(const Tables& tables, Worker& worker);
  // True if the socket must be served again soon, even if nothing is received.
  bool looks_again() const { return rings_.looks_again(); }

  const XdpTally& tally() const { return tally_; }

 private:
  XdpSocket() = default;
  void send();
  size_t answer_frame(std::span<uint8_t> room, size_t frame_bytes, const Tables& tables, Worker& worker);

  XdpRings rings_;
  void* memory_ = nullptr;
  xsk_umem* umem_ = nullptr;
  xsk_socket* socket_ = nullptr;
  bool zero_copy_ = false;
  uint16_t identification_ = 0;
  std::array<uint8_t, kMaxUdpPayload> answer_{};  // answer() must not write over the query that it reads
  XdpTally tally_;
};

}  // namespace tidegate::dns
