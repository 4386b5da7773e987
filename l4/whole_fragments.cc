// SPDX-License-Identifier: Apache-2.0
// DPDK's af_packet driver asks the kernel to join IPv4 fragments before it distributes frames over queues
// (PACKET_FANOUT_FLAG_DEFRAG), and it has no option against that. A joined datagram is longer than the link's MTU, so
// it could not be sent on. The driver calls setsockopt(2) through the dynamic linker, which finds this definition
// first. This definition removes the flag, and otherwise only makes the system call.
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

extern "C" __attribute__((visibility("default"))) int setsockopt(int fd, int level, int option, const void* value,
                                                                 socklen_t bytes) noexcept {
  unsigned fanout = 0;
  if (level == SOL_PACKET && option == PACKET_FANOUT && bytes == sizeof fanout) {
    std::memcpy(&fanout, value, sizeof fanout);
    fanout &= ~(unsigned{PACKET_FANOUT_FLAG_DEFRAG} << 16);
    value = &fanout;
  }
  return static_cast<int>(::syscall(SYS_setsockopt, fd, level, option, value, bytes));
}
