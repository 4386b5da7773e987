// SPDX-License-Identifier: Apache-2.0
// LinkFacts: the present facts of a network interface, by rtnetlink. LinkEvents: a descriptor that becomes readable
// when any of these facts changes. Control thread.
#pragma once

#include <cstdint>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "l4/wire.h"

namespace tidegate::l4 {

struct LinkFacts {
  bool exists = false;
  bool up = false;  // the interface is set up, and so is the other end of its link
  uint32_t index = 0;
  uint32_t mtu = 0;
  uint32_t xdp_program = 0;  // id of the attached XDP program; 0: none
};

// Returns an Error only if the kernel cannot be asked.
Result<LinkFacts> read_link(const std::string& device);

class LinkEvents {
 public:
  LinkEvents();
  int fd() const { return fd_.get(); }  // -1 if the kernel refuses: then only a timer checks the links
  void drain();

 private:
  UniqueFd fd_;
};

}  // namespace tidegate::l4
