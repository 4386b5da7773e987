// SPDX-License-Identifier: Apache-2.0
// LinkFacts: what the kernel says of a network interface now, by rtnetlink. LinkEvents: a descriptor that becomes
// readable when any of them changes. Control thread.
#pragma once

#include <cstdint>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "l4/wire.h"

namespace tidegate::l4 {

struct LinkFacts {
  bool exists = false;
  bool up = false;  // set up, and the other end too
  uint32_t index = 0;
  uint32_t mtu = 0;
  uint32_t xdp_program = 0;  // id of the XDP program that is attached, 0: none
};

// An Error only when the kernel cannot be asked.
Result<LinkFacts> read_link(const std::string& device);

class LinkEvents {
 public:
  LinkEvents();
  int fd() const { return fd_.get(); }  // -1 where the kernel refuses: then only the clock asks
  void drain();

 private:
  UniqueFd fd_;
};

}  // namespace tidegate::l4
