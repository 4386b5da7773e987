// SPDX-License-Identifier: Apache-2.0
// TunDevice: the interface through which unwrapped packets enter the kernel, as if they had come from a link.
#pragma once

#include <cstdint>
#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace tidegate::l4 {

class TunDevice {
 public:
  // Makes the interface, sets it up, and turns its reverse path filter off, because the answers to its packets leave by
  // another interface. Needs CAP_NET_ADMIN. The interface disappears with the object.
  static Result<TunDevice> open(const std::string& name);
  // Gives one IP packet to the kernel. Returns false if the kernel refused it.
  bool write(const uint8_t* packet, size_t bytes) const;

 private:
  explicit TunDevice(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace tidegate::l4
