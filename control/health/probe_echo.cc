// SPDX-License-Identifier: Apache-2.0
// ICMP echo, by a socket of the kernel's own (ping sockets: net.ipv4.ping_group_range says who may open one). The
// kernel writes identifier and checksum, and gives only the answers to this socket.
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>

#include <array>

#include "control/health/probe_attempt.h"
#include "core/crypto.h"

namespace tidegate {

namespace {

constexpr size_t kEchoHeaderBytes = 8, kEchoTokenBytes = 16;

// The address is up if the answer has the random bytes that were sent.
class EchoAttempt final : public SocketAttempt {
 public:
  EchoAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done)
      : SocketAttempt(loop, target, std::move(done), SOCK_DGRAM,
                      target.endpoint.address.is_v6() ? int{IPPROTO_ICMPV6} : int{IPPROTO_ICMP}),
        is_v6_(target.endpoint.address.is_v6()),
        token_(random_bytes(kEchoTokenBytes)) {}

 private:
  void on_ready() override {
    if (!sent_) {
      std::string message(kEchoHeaderBytes, '\0');
      message[0] = static_cast<char>(is_v6_ ? ICMP6_ECHO_REQUEST : ICMP_ECHO);
      message += token_;
      if (::send(fd(), message.data(), message.size(), MSG_NOSIGNAL) < 0) {
        return finish({false, fmt::format("send: {}", std::strerror(errno))});
      }
      sent_ = true;
      return wait_for(EPOLLIN);
    }
    std::array<char, kEchoHeaderBytes + kEchoTokenBytes> answer;
    const ssize_t got = ::recv(fd(), answer.data(), answer.size(), 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) return finish({false, connect_sentence(errno), true, cause_of_error(errno)});
    const std::string_view bytes(answer.data(), static_cast<size_t>(got));
    const uint8_t reply = is_v6_ ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY;
    // Another answer is none: the deadline ends the attempt.
    if (bytes.size() == answer.size() && static_cast<uint8_t>(bytes[0]) == reply && bytes.ends_with(token_)) {
      finish({true, ""});
    }
  }

  const bool is_v6_;
  const std::string token_;
  bool sent_ = false;
};

}  // namespace

std::unique_ptr<ProbeAttempt> start_echo_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done) {
  return std::make_unique<EchoAttempt>(loop, target, std::move(done));
}

}  // namespace tidegate
