// SPDX-License-Identifier: Apache-2.0
// Sends UDP at a given rate and ignores what comes back. Answers and arrivals are counted elsewhere, so that this
// program costs as little as possible. Segmentation offload sends 32 datagrams of one flow per system call.
//
//  udp_flood ADDRESS:PORT SECONDS RATE FLOWS SIZE
//    datagrams of SIZE bytes
//  udp_flood ADDRESS:PORT SECONDS RATE FLOWS NAMES_FILE
//    DNS queries for A of these names in turn; all names have the same length
//
//  RATE: datagrams per second; 0: as many as possible      prints: sent, seconds
#include <linux/udp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/ip.h"

namespace {

using tidegate::Endpoint;
using tidegate::monotonic_ns;

constexpr size_t kBatch = 32;

std::string query_for_a(const std::string& name) {
  std::string query("\0\0\0\0\0\1\0\0\0\0\0\0", 12);
  for (size_t from = 0; from < name.size();) {
    const size_t dot = std::min(name.find('.', from), name.size());
    query += static_cast<char>(dot - from);
    query.append(name, from, dot - from);
    from = dot + 1;
  }
  return query.append("\0\0\1\0\1", 5);
}

// Returns datagrams of one size. Returns nothing if `what` is neither a size nor a file of names of one length.
std::vector<std::string> read_datagrams(const char* what) {
  char* end = nullptr;
  const unsigned long size = std::strtoul(what, &end, 10);
  if (*end == '\0') return {std::string(size, 'x')};
  std::vector<std::string> queries;
  std::ifstream names(what);
  for (std::string name; std::getline(names, name);) {
    queries.push_back(query_for_a(name));
    if (queries.back().size() != queries.front().size()) return {};
  }
  return queries;
}

std::vector<int> open_flows(const Endpoint& server, size_t flows, int segment_bytes) {
  sockaddr_storage storage;
  const socklen_t length = server.to_sockaddr(storage);
  const int wide = 4 << 20;
  std::vector<int> fds;
  while (fds.size() < flows) {
    const int fd = ::socket(storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0 ||
        ::setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment_bytes, sizeof segment_bytes) != 0) {
      std::perror("udp_flood: socket");
      std::exit(1);
    }
    ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wide, sizeof wide);
    fds.push_back(fd);
  }
  return fds;
}

}  // namespace

int main(int argc, char** argv) {
  const auto server = argc == 6 ? Endpoint::parse(argv[1]) : std::nullopt;
  const std::vector<std::string> datagrams = server ? read_datagrams(argv[5]) : std::vector<std::string>();
  if (datagrams.empty() || std::atoll(argv[4]) < 1) {
    std::fprintf(stderr, "usage: udp_flood ADDRESS:PORT SECONDS RATE FLOWS SIZE|NAMES_FILE (names of one length)\n");
    return 2;
  }
  const double seconds = std::atof(argv[2]), rate = std::atof(argv[3]);
  const size_t size = datagrams.front().size();
  const std::vector<int> fds = open_flows(*server, static_cast<size_t>(std::atoll(argv[4])), static_cast<int>(size));
  const uint64_t began_ns = monotonic_ns(), until_ns = began_ns + static_cast<uint64_t>(seconds * 1e9);
  std::string batch(kBatch * size, '\0');
  uint64_t sent = 0, tried = 0;
  uint64_t now_ns = began_ns;
  for (; now_ns < until_ns; now_ns = monotonic_ns()) {
    if (rate > 0 && static_cast<double>(tried) > rate * static_cast<double>(now_ns - began_ns) / 1e9) continue;
    for (size_t i = 0; i < kBatch; ++i)
      std::memcpy(&batch[i * size], datagrams[(tried + i) % datagrams.size()].data(), size);
    const size_t flow = tried / kBatch % fds.size();
    tried += kBatch;
    // ECONNREFUSED is an ICMP answer to an earlier datagram. ENOBUFS and EAGAIN mean a full queue. In each case this
    // batch was not sent.
    if (::send(fds[flow], batch.data(), batch.size(), 0) > 0) sent += kBatch;
  }
  std::printf("%lu %.4f\n", sent, static_cast<double>(now_ns - began_ns) / 1e9);
}
