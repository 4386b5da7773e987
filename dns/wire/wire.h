// SPDX-License-Identifier: Apache-2.0
// The DNS message on the wire (RFC 1035 §4): numbers, big-endian access, names. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/hash.h"

namespace tidegate::dns {

constexpr size_t kHeaderBytes = 12;
constexpr size_t kMaxMessageBytes = 65'535;
constexpr size_t kMinUdpPayload = 512;    // RFC 1035 §4.2.1, and the minimum of RFC 6891 §6.2.3
constexpr size_t kMaxUdpPayload = 1'232;  // fits the smallest MTU of IPv6 unfragmented (DNS Flag Day 2020)
constexpr uint16_t kQnameOffset = kHeaderBytes;

// Offsets and bits of the header (RFC 1035 §4.1.1).
namespace header {
constexpr size_t kId = 0, kFlags = 2, kQuestions = 4, kAnswers = 6, kAuthorities = 8, kAdditionals = 10;
constexpr uint16_t kResponse = 0x8000, kOpcodeMask = 0x7800, kAuthoritative = 0x0400, kTruncated = 0x0200,
                   kRecursionDesired = 0x0100, kCheckingDisabled = 0x0010, kRcodeMask = 0x000f;
constexpr int kOpcodeShift = 11;
}  // namespace header

enum class Rcode : uint16_t {
  noerror = 0,
  formerr = 1,
  servfail = 2,
  nxdomain = 3,
  notimp = 4,
  refused = 5,
  yxdomain = 6,
  badvers = 16,    // RFC 6891 §9
  badcookie = 23,  // RFC 7873 §8
};
const char* name(Rcode rcode);

namespace rrtype {
constexpr uint16_t kA = 1, kNs = 2, kCname = 5, kSoa = 6, kPtr = 12, kHinfo = 13, kMx = 15, kAaaa = 28, kSrv = 33,
                   kDname = 39, kOpt = 41, kDs = 43, kSvcb = 64, kHttps = 65, kTkey = 249, kTsig = 250, kIxfr = 251,
                   kAxfr = 252, kAny = 255;
}  // namespace rrtype
constexpr uint16_t kClassIn = 1;

inline uint16_t load_u16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }
inline uint32_t load_u32(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 | static_cast<uint32_t>(at[2]) << 8 |
         at[3];
}
inline void store_u16(uint8_t* at, uint16_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}
inline void store_u32(uint8_t* at, uint32_t value) {
  store_u16(at, static_cast<uint16_t>(value >> 16));
  store_u16(at + 2, static_cast<uint16_t>(value));
}
constexpr uint16_t kPointerBits = 0xc000;  // RFC 1035 §4.1.4
constexpr size_t kMaxPointerTarget = 0x3fff;

// Hash of a lower-cased name in wire form, under a key drawn at start. So a client that chooses queries cannot choose
// collisions.
uint64_t name_hash(std::span<const uint8_t> lower_name);

// A domain name in wire form, lower-cased (RFC 4343), with the offset of every label. It has a fixed size and lives on
// the stack.
class Name {
 public:
  static constexpr size_t kMaxBytes = 255;   // RFC 1035 §2.3.4
  static constexpr size_t kMaxLabels = 127;  // without the root label

  // Reads the uncompressed name at the start of `in`. Returns false if it runs past the end, has a pointer, or is too
  // long.
  bool parse(std::span<const uint8_t> in);
  // From presentation form; it is absolute, with or without the final dot. Understands \. and \DDD.
  static std::optional<Name> from_text(std::string_view text);

  std::span<const uint8_t> wire() const { return {lower_.data(), bytes_}; }
  size_t bytes() const { return bytes_; }
  size_t labels() const { return labels_; }
  // The last `labels` labels and the root.
  std::span<const uint8_t> suffix(size_t labels) const {
    return wire().subspan(labels == 0 ? bytes_ - size_t{1} : label_at_[labels_ - labels]);
  }

 private:
  uint8_t bytes_ = 0;
  uint8_t labels_ = 0;
  std::array<uint8_t, 256> lower_;     // the first bytes_ are set
  std::array<uint8_t, 128> label_at_;  // the first labels_ are set
};

// Presentation form with the final dot, for people.
std::string name_to_text(std::span<const uint8_t> wire_name);

// One resource record of a message, for readers of whole answers (HTTPDNS, DoH, explain). Not used on the UDP path.
struct RecordView {
  enum class Section : uint8_t { answer, authority, additional } section;
  uint16_t type = 0;
  uint32_t ttl_s = 0;
  std::span<const uint8_t> rdata;
};

// Walks a well-formed response that we made. Calls fn(RecordView).
template <class Fn>
void for_each_record(std::span<const uint8_t> message, Fn&& fn);

namespace detail {
// The offset after the (possibly compressed) name at `at`, or SIZE_MAX.
size_t skip_name(std::span<const uint8_t> message, size_t at);
}  // namespace detail

template <class Fn>
void for_each_record(std::span<const uint8_t> message, Fn&& fn) {
  if (message.size() < kHeaderBytes) return;
  size_t at = kHeaderBytes;
  for (uint16_t i = load_u16(&message[header::kQuestions]); i > 0; --i) {
    at = detail::skip_name(message, at);
    if (at == SIZE_MAX || at + 4 > message.size()) return;
    at += 4;
  }
  for (size_t section = 0; section < 3; ++section) {
    for (uint16_t i = load_u16(&message[header::kAnswers + 2 * section]); i > 0; --i) {
      at = detail::skip_name(message, at);
      if (at == SIZE_MAX || at + 10 > message.size()) return;
      const size_t rdata_bytes = load_u16(&message[at + 8]);
      if (at + 10 + rdata_bytes > message.size()) return;
      fn(RecordView{static_cast<RecordView::Section>(section), load_u16(&message[at]), load_u32(&message[at + 4]),
                    message.subspan(at + 10, rdata_bytes)});
      at += 10 + rdata_bytes;
    }
  }
}

// The seconds for which an answer may be kept: the smallest TTL of its answers (RFC 8484 §5.1), or the value of the SOA
// for a negative answer.
uint32_t freshness_s(std::span<const uint8_t> message);

}  // namespace tidegate::dns
