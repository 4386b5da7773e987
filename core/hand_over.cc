// SPDX-License-Identifier: Apache-2.0
#include "core/hand_over.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/assert.h"
#include "core/clock.h"
#include "core/limits.h"

namespace tidegate {
namespace {

constexpr std::string_view kMagic = "TGHO";
constexpr size_t kHeadBytes = 20;
constexpr size_t kItemBytes = 20;
constexpr size_t kMostBytes = kHeadBytes + kHandOverTextBytes + kHandOverItems * kItemBytes;

void put(std::string& out, uint64_t value, size_t bytes) {
  for (size_t i = bytes; i-- > 0;) out.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t take(std::string_view& in, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | static_cast<uint8_t>(in[i]);
  in.remove_prefix(bytes);
  return value;
}

Result<HandOverItem> take_item(std::string_view& in) {
  HandOverItem item;
  const uint64_t kind = take(in, 1), family = take(in, 1);
  if (kind < 1 || kind > static_cast<uint64_t>(HandOverItemKind::memory)) {
    return fail(fmt::format("an item of the unknown kind {}", kind));
  }
  item.kind = static_cast<HandOverItemKind>(kind);
  const auto port = static_cast<uint16_t>(take(in, 2));
  sockaddr_storage address{};
  if (family == 4) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(address);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, in.data(), sizeof v4.sin_addr);
  } else if (family == 6) {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&v6.sin6_addr, in.data(), sizeof v6.sin6_addr);
  } else {
    return fail(fmt::format("an address of the unknown family {}", family));
  }
  in.remove_prefix(16);
  item.endpoint = Endpoint::from(address);
  return item;
}

void put_item(std::string& out, const HandOverItem& item) {
  sockaddr_storage address{};
  item.endpoint.to_sockaddr(address);
  const bool is_v6 = item.endpoint.address.is_v6();
  put(out, static_cast<uint64_t>(item.kind), 1);
  put(out, is_v6 ? 6 : 4, 1);
  put(out, item.endpoint.port, 2);
  if (is_v6) {
    out.append(reinterpret_cast<const char*>(&reinterpret_cast<sockaddr_in6&>(address).sin6_addr), 16);
  } else {
    out.append(reinterpret_cast<const char*>(&reinterpret_cast<sockaddr_in&>(address).sin_addr), 4);
    out.append(12, '\0');
  }
}

// Takes every descriptor of a message first. So no descriptor leaks if the message is faulty.
std::vector<UniqueFd> descriptors_of(msghdr& message) {
  std::vector<UniqueFd> descriptors;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      descriptors.emplace_back(fd);
    }
  }
  return descriptors;
}

}  // namespace

const char* name(HandOverKind kind) {
  switch (kind) {
    case HandOverKind::hello:
      return "hello";
    case HandOverKind::sockets:
      return "sockets";
    case HandOverKind::all_sockets:
      return "all_sockets";
    case HandOverKind::warm:
      return "warm";
    case HandOverKind::go:
      return "go";
    case HandOverKind::serving:
      return "serving";
    case HandOverKind::progress:
      return "progress";
    case HandOverKind::refusal:
      return "refusal";
  }
  return "?";
}

bool is_in_format(HandOverItemKind kind, uint16_t format) {
  constexpr uint16_t kWithMemory = 2;
  return kind != HandOverItemKind::memory || format >= kWithMemory;
}

std::string encode(const HandOverMessage& message, uint16_t format) {
  TIDEGATE_ASSERT(message.text.size() <= kHandOverTextBytes, "a text of a hand-over is bounded");
  TIDEGATE_ASSERT(message.items.size() <= kHandOverItems, "a message carries a bounded number of descriptors");
  std::string out(kMagic);
  put(out, format, 2);
  put(out, static_cast<uint64_t>(message.kind), 2);
  put(out, message.number, 8);
  put(out, message.text.size(), 2);
  put(out, message.items.size(), 2);
  out += message.text;
  for (const HandOverItem& item : message.items) put_item(out, item);
  return out;
}

Result<HandOverMessage> decode_hand_over(std::string_view bytes, HandOverFormats formats) {
  if (bytes.size() < kHeadBytes || !bytes.starts_with(kMagic)) return fail("this is no message of a hand-over");
  std::string_view in = bytes.substr(kMagic.size());
  const auto format = static_cast<uint16_t>(take(in, 2));
  HandOverMessage message;
  message.format = format;
  const uint64_t kind = take(in, 2);
  if (!formats.includes(format) && kind != static_cast<uint64_t>(HandOverKind::refusal)) {
    return fail(fmt::format("the hand-over's format is {}; this program speaks {} to {}", format, formats.oldest,
                            formats.newest));
  }
  if (kind < 1 || kind > static_cast<uint64_t>(HandOverKind::refusal)) {
    return fail(fmt::format("a message of the unknown kind {}", kind));
  }
  message.kind = static_cast<HandOverKind>(kind);
  message.number = take(in, 8);
  const uint64_t text_bytes = take(in, 2), items = take(in, 2);
  if (text_bytes > kHandOverTextBytes || items > kHandOverItems) return fail("the message is larger than its limits");
  if (in.size() != text_bytes + items * kItemBytes) return fail("the message's length is not what its head says");
  message.text = in.substr(0, text_bytes);
  in.remove_prefix(text_bytes);
  for (uint64_t i = 0; i < items; ++i) {
    Result<HandOverItem> item = take_item(in);
    if (!item) return item.error();
    message.items.push_back(*item);
  }
  return message;
}

Result<std::pair<UniqueFd, UniqueFd>> HandOverChannel::make_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(std::string("cannot make a socket pair: ") + std::strerror(errno));
  }
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

Result<void> HandOverChannel::send(const HandOverMessage& message, const std::vector<int>& descriptors) {
  TIDEGATE_ASSERT(message.items.size() == descriptors.size(), "each item has one descriptor");
  std::string bytes = encode(message, format_);
  iovec vector{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kHandOverItems * sizeof(int))> control{};
  if (!descriptors.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    std::memcpy(CMSG_DATA(part), descriptors.data(), descriptors.size() * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return fail(fmt::format("cannot send {}: {}", name(message.kind), std::strerror(errno)));
  return {};
}

bool HandOverChannel::readable() const {
  pollfd ready{socket_.get(), POLLIN, 0};
  return ::poll(&ready, 1, 0) == 1;
}

Result<HandOverReceived> HandOverChannel::receive(int timeout_ms) {
  const uint64_t end_ns = monotonic_ns() + static_cast<uint64_t>(timeout_ms) * kNsPerMs;
  for (;;) {
    pollfd ready{socket_.get(), POLLIN, 0};
    const uint64_t now_ns = monotonic_ns();
    const int left_ms = now_ns >= end_ns ? 0 : static_cast<int>((end_ns - now_ns + kNsPerMs - 1) / kNsPerMs);
    const int count = ::poll(&ready, 1, left_ms);
    if (count == 1) break;
    if (count == 0) return fail(fmt::format("nothing came within {} ms", timeout_ms));
    if (errno != EINTR) return fail(std::string("poll: ") + std::strerror(errno));
  }
  std::array<char, kMostBytes> bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kHandOverItems * sizeof(int))> control{};
  iovec vector{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return fail(std::string("recvmsg: ") + std::strerror(errno));
  HandOverReceived received;
  received.descriptors = descriptors_of(header);
  if (got == 0) return fail("it ended");
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return fail("the message is larger than its limits");
  Result<HandOverMessage> message = decode_hand_over({bytes.data(), static_cast<size_t>(got)});
  if (!message) return message.error();
  received.message = *std::move(message);
  format_ = received.message.format;
  if (received.message.items.size() != received.descriptors.size()) {
    return fail(fmt::format("a message has {} items and {} descriptors", received.message.items.size(),
                            received.descriptors.size()));
  }
  return received;
}

}  // namespace tidegate
