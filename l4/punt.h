// SPDX-License-Identifier: Apache-2.0
// PuntDevice: a TAP interface through which the kernel sees the frames of a port that are not ours, and sends its own.
// An AF_XDP queue or a NIC of DPDK's takes every frame, SSH and routing protocols included; with `punt: tap` the host
// is reached through the TAP, which carries the port's MAC address. The operator puts the host's addresses on it.
#pragma once

#include <cstdint>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "l4/wire.h"

namespace tidegate::l4 {

// "tg-<device>". A name that is too long for the kernel is cut and made its own again by a hash of the whole.
std::string punt_device_name(const std::string& port_device);

class PuntDevice {
 public:
  // Creates the interface punt_device_name() with this MAC and sets it up. It disappears with the process.
  static Result<PuntDevice> open(const std::string& port_device, const Mac& mac);

  const std::string& name() const { return name_; }
  // After the port got another MAC address.
  Result<void> set_mac(const Mac& mac) const;
  int fd() const { return fd_.get(); }  // readable when the kernel has a frame
  // Any worker. False when the kernel does not take it.
  bool write(const uint8_t* frame, size_t bytes) const;
  // One worker. Bytes of one frame, 0 when there is none.
  size_t read(uint8_t* frame, size_t capacity) const;

 private:
  PuntDevice(UniqueFd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
  UniqueFd fd_;
  std::string name_;
};

}  // namespace tidegate::l4
