// SPDX-License-Identifier: Apache-2.0
// The floor of DNS over UDP: recvmmsg, set QR, sendmmsg, sixteen at a time. Its cost is the kernel's cost.
//
//  floor_dns ADDRESS:PORT
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/ip.h"

int main(int argc, char** argv) {
  const auto endpoint = argc == 2 ? tidegate::Endpoint::parse(argv[1]) : std::nullopt;
  if (!endpoint) {
    std::fprintf(stderr, "usage: floor_dns ADDRESS:PORT\n");
    return 2;
  }
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_storage storage;
  const socklen_t length = endpoint->to_sockaddr(storage);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0) {
    std::perror("floor_dns: bind");
    return 1;
  }
  constexpr unsigned kBatch = 16;
  static char buffers[kBatch][1500];
  static sockaddr_storage peers[kBatch];
  static iovec vectors[kBatch];
  static mmsghdr messages[kBatch];
  for (;;) {
    for (unsigned i = 0; i < kBatch; ++i) {
      vectors[i] = {buffers[i], sizeof buffers[i]};
      messages[i] = {};
      messages[i].msg_hdr.msg_name = &peers[i];
      messages[i].msg_hdr.msg_namelen = sizeof peers[i];
      messages[i].msg_hdr.msg_iov = &vectors[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int got = ::recvmmsg(fd, messages, kBatch, MSG_WAITFORONE, nullptr);
    for (int i = 0; i < got; ++i) {
      buffers[i][2] = static_cast<char>(buffers[i][2] | 0x80);
      vectors[i].iov_len = messages[i].msg_len;
    }
    if (got > 0) ::sendmmsg(fd, messages, static_cast<unsigned>(got), 0);
  }
}
