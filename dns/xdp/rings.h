// SPDX-License-Identifier: Apache-2.0
// XdpRings: the four rings that a socket shares with the kernel, and the frames that move through them.
//
//   fill -> (kernel receives) -> received -> ours -> to_send -> (kernel sends) -> completion -> fill
//                                              \-> fill, where nothing is answered
//
// Every frame is always in exactly one place of this circle, and each ring has room for all of them: So there is always
// a free slot for a frame's next step, and no frame can be lost. One thread.
#pragma once

#include <xdp/xsk.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tidegate::dns {

struct XdpRings {
  // frames of memory, and slots in each ring: enough for some 5 ms of overload
  static constexpr uint32_t kFrames = 2'048;
  // the first 256 of them, before a received frame, belong to the kernel
  static constexpr uint32_t kFrameBytes = 2'048;
  static constexpr size_t kMemoryBytes = size_t{kFrames} * kFrameBytes;
  static constexpr uint32_t kBatch = 64;

  xsk_ring_prod fill{};
  xsk_ring_cons completion{};
  xsk_ring_cons received{};
  xsk_ring_prod to_send{};
  uint8_t* memory = nullptr;  // has kMemoryBytes bytes
  uint32_t under_way = 0;     // answers that were given to the kernel and whose frames are not back yet

  // Call it once, before any other function: gives every frame to the kernel.
  void hand_out_frames() {
    uint32_t at = 0;
    xsk_ring_prod__reserve(&fill, kFrames, &at);
    for (uint32_t i = 0; i < kFrames; ++i) *xsk_ring_prod__fill_addr(&fill, at + i) = uint64_t{i} * kFrameBytes;
    xsk_ring_prod__submit(&fill, kFrames);
  }

  // Puts frames that were sent back into the fill ring. Returns how many.
  uint32_t recycle() {
    uint32_t from = 0, to = 0;
    const uint32_t sent = xsk_ring_cons__peek(&completion, kFrames, &from);
    if (sent == 0) return 0;
    xsk_ring_prod__reserve(&fill, sent, &to);
    for (uint32_t i = 0; i < sent; ++i) {
      *xsk_ring_prod__fill_addr(&fill, to + i) = frame_of(*xsk_ring_cons__comp_addr(&completion, from + i));
    }
    under_way -= sent;
    xsk_ring_cons__release(&completion, sent);
    xsk_ring_prod__submit(&fill, sent);
    return sent;
  }

  // Takes up to kBatch received frames. `answer` gets each frame with the room of its memory, and its length. It
  // returns the length of the frame to send from the same place, or 0 for none. Returns how many frames were taken.
  template <class Answer>  // size_t(std::span<uint8_t> room, size_t frame_bytes)
  uint32_t serve(Answer&& answer) {
    uint32_t from = 0, send_at = 0, fill_at = 0, sent = 0;
    const uint32_t taken = xsk_ring_cons__peek(&received, kBatch, &from);
    if (taken == 0) return 0;
    for (uint32_t i = 0; i < taken; ++i) {
      const xdp_desc frame = *xsk_ring_cons__rx_desc(&received, from + i);
      const size_t room = kFrameBytes - frame.addr % kFrameBytes;
      const size_t bytes = answer(std::span(memory + frame.addr, room), size_t{frame.len});
      if (bytes > 0) {
        xsk_ring_prod__reserve(&to_send, 1, &send_at);
        *xsk_ring_prod__tx_desc(&to_send, send_at) = {frame.addr, static_cast<uint32_t>(bytes), 0};
        ++sent;
      } else {
        xsk_ring_prod__reserve(&fill, 1, &fill_at);
        *xsk_ring_prod__fill_addr(&fill, fill_at) = frame_of(frame.addr);
      }
    }
    xsk_ring_cons__release(&received, taken);
    under_way += sent;
    if (sent > 0) xsk_ring_prod__submit(&to_send, sent);
    if (sent < taken) xsk_ring_prod__submit(&fill, taken - sent);
    return taken;
  }

  // Whether to check again soon even if nothing is received. There are two reasons: the kernel must be asked again to
  // send; or it holds so many answers that few frames are left for receiving. Frames that come back wake nobody.
  bool looks_again() const { return unsent() > 0 || under_way > kFrames / 2; }

  // Answers that the kernel has not taken yet.
  uint32_t unsent() const { return to_send.cached_prod - __atomic_load_n(to_send.consumer, __ATOMIC_ACQUIRE); }

 private:
  static uint64_t frame_of(uint64_t address) { return address - address % kFrameBytes; }
};

}  // namespace tidegate::dns
