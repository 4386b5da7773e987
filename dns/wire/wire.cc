// SPDX-License-Identifier: Apache-2.0
#include "dns/wire/wire.h"

#include "core/crypto.h"

namespace tidegate::dns {
namespace {

// Lower-cases the ASCII letters among eight bytes at once. Label lengths are at most 63, below 'A', and pass unchanged.
uint64_t lower_eight(uint64_t word) {
  constexpr uint64_t kEach = 0x0101010101010101ULL;
  constexpr uint64_t kHigh = 0x80 * kEach;
  const uint64_t low_bits = word & ~kHigh;
  const uint64_t at_least_a = low_bits + (0x80 - 'A') * kEach;
  const uint64_t above_z = low_bits + (0x7f - 'Z') * kEach;
  const uint64_t upper_case = ~word & kHigh & (at_least_a ^ above_z);
  return word | upper_case >> 2;
}

HashKey draw_key() {
  const std::string bytes = random_bytes(sizeof(HashKey));
  HashKey key;
  std::memcpy(&key, bytes.data(), sizeof key);
  return key;
}

const HashKey g_name_key = draw_key();

}  // namespace

uint64_t name_hash(std::span<const uint8_t> lower_name) {
  return siphash13(g_name_key, lower_name.data(), lower_name.size());
}

const char* name(Rcode rcode) {
  switch (rcode) {
    case Rcode::noerror:
      return "NOERROR";
    case Rcode::formerr:
      return "FORMERR";
    case Rcode::servfail:
      return "SERVFAIL";
    case Rcode::nxdomain:
      return "NXDOMAIN";
    case Rcode::notimp:
      return "NOTIMP";
    case Rcode::refused:
      return "REFUSED";
    case Rcode::yxdomain:
      return "YXDOMAIN";
    case Rcode::badvers:
      return "BADVERS";
    case Rcode::badcookie:
      return "BADCOOKIE";
  }
  return "?";
}

bool Name::parse(std::span<const uint8_t> in) {
  size_t at = 0;
  size_t labels = 0;
  for (;;) {
    if (at >= in.size()) return false;
    const uint8_t length = in[at];
    if (length == 0) break;
    if (length > 63) return false;  // a pointer, or a reserved label type
    label_at_[labels++] = static_cast<uint8_t>(at);
    at += size_t{1} + length;
    if (at >= kMaxBytes) return false;
  }
  bytes_ = static_cast<uint8_t>(at + 1);
  labels_ = static_cast<uint8_t>(labels);
  std::memcpy(lower_.data(), in.data(), bytes_);
  for (size_t i = 0; i < bytes_; i += 8) {
    uint64_t word;
    std::memcpy(&word, lower_.data() + i, 8);  // the buffer is a multiple of eight; bytes past the name are not used
    word = lower_eight(word);
    std::memcpy(lower_.data() + i, &word, 8);
  }
  return true;
}

std::optional<Name> Name::from_text(std::string_view text) {
  if (text == ".") text = "";
  std::array<uint8_t, 256> wire;
  size_t length_at = 0;
  size_t at = 1;
  const auto end_label = [&] {
    const size_t length = at - length_at - 1;
    if (length == 0 || length > 63) return false;
    wire[length_at] = static_cast<uint8_t>(length);
    length_at = at++;
    return true;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (at >= kMaxBytes) return std::nullopt;
    auto byte = static_cast<uint8_t>(text[i]);
    if (byte == '.') {
      if (!end_label()) return std::nullopt;
      continue;
    }
    if (byte == '\\') {
      if (++i >= text.size()) return std::nullopt;
      byte = static_cast<uint8_t>(text[i]);
      const auto digit = [&](size_t k) {
        return k < text.size() && text[k] >= '0' && text[k] <= '9' ? text[k] - '0' : -1;
      };
      if (digit(i) >= 0) {  // \DDD, RFC 1035 §5.1
        if (digit(i + 1) < 0 || digit(i + 2) < 0) return std::nullopt;
        const int value = digit(i) * 100 + digit(i + 1) * 10 + digit(i + 2);
        if (value > 255) return std::nullopt;
        byte = static_cast<uint8_t>(value);
        i += 2;
      }
    }
    wire[at++] = byte;
  }
  if (at > length_at + 1 && !end_label()) return std::nullopt;
  wire[length_at] = 0;
  std::optional<Name> name(std::in_place);
  if (!name->parse({wire.data(), length_at + 1})) return std::nullopt;
  return name;
}

std::string name_to_text(std::span<const uint8_t> wire_name) {
  std::string text;
  size_t at = 0;
  while (at < wire_name.size() && wire_name[at] != 0) {
    const size_t end = std::min(at + 1 + wire_name[at], wire_name.size());
    for (++at; at < end; ++at) {
      const uint8_t byte = wire_name[at];
      if (byte == '.' || byte == '\\') {
        text += '\\';
        text += static_cast<char>(byte);
      } else if (byte > 0x20 && byte < 0x7f) {
        text += static_cast<char>(byte);
      } else {
        text += '\\';
        text += static_cast<char>('0' + byte / 100);
        text += static_cast<char>('0' + byte / 10 % 10);
        text += static_cast<char>('0' + byte % 10);
      }
    }
    text += '.';
  }
  return text.empty() ? "." : text;
}

size_t detail::skip_name(std::span<const uint8_t> message, size_t at) {
  while (at < message.size()) {
    const uint8_t length = message[at];
    if (length == 0) return at + 1;
    if (length >= 0xc0) return at + 2 <= message.size() ? at + 2 : SIZE_MAX;
    if (length > 63) return SIZE_MAX;
    at += size_t{1} + length;
  }
  return SIZE_MAX;
}

uint32_t freshness_s(std::span<const uint8_t> message) {
  uint32_t answers_s = UINT32_MAX;
  uint32_t soa_s = UINT32_MAX;
  for_each_record(message, [&](const RecordView& record) {
    if (record.section == RecordView::Section::answer) answers_s = std::min(answers_s, record.ttl_s);
    if (record.section == RecordView::Section::authority && record.type == rrtype::kSoa)
      soa_s = std::min(soa_s, record.ttl_s);
  });
  const uint32_t least_s = std::min(answers_s, soa_s);
  return least_s == UINT32_MAX ? 0 : least_s;
}

}  // namespace tidegate::dns
