// SPDX-License-Identifier: Apache-2.0
// PuntDevice: a TAP interface for the frames that are not ours: the kernel receives them there and sends its own. An
// AF_XDP queue or a DPDK NIC takes every frame, including SSH and routing protocols. With `punt: tap` the host is
// reached through the TAP, which has the port's MAC address. The operator assigns the host's addresses to it.
#pragma once

#include <cstdint>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "l4/wire.h"

namespace tidegate::l4 {

// Returns "tg-<device>". If the name is too long for the kernel, it is cut, and a hash of the whole name makes it
// unique again.
std::string punt_device_name(const std::string& port_device);

class PuntDevice {
 public:
  // Creates the interface punt_device_name() with this MAC and sets it up. The interface disappears with the process.
  static Result<PuntDevice> open(const std::string& port_device, const Mac& mac);

  const std::string& name() const { return name_; }
  // Call after the port got another MAC address.
  Result<void> set_mac(const Mac& mac) const;
  int fd() const { return fd_.get(); }  // readable when the kernel sent a frame
  // Any worker may call it. Returns false if the kernel does not take the frame.
  bool write(const uint8_t* frame, size_t bytes) const;
  // Only one worker may call it. Returns the bytes of one frame, or 0 if there is none.
  size_t read(uint8_t* frame, size_t capacity) const;

 private:
  PuntDevice(UniqueFd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
  UniqueFd fd_;
  std::string name_;
};

}  // namespace tidegate::l4
