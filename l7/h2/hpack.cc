// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/hpack.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "l7/h2/hpack_code.h"

namespace tidegate::l7 {
namespace {

using hpack::Code;
using hpack::kCodeBits;
using hpack::kCodes;
using hpack::kStatic;
using hpack::kStaticFields;
using hpack::StaticField;

constexpr uint64_t load(const char* text, size_t bytes) {
  if (std::is_constant_evaluated()) {
    uint64_t word = 0;
    for (size_t i = 0; i < bytes; ++i) word |= uint64_t{static_cast<uint8_t>(text[i])} << (8 * i);
    return word;
  }
  uint64_t word = 0;
  std::memcpy(&word, text, bytes);
  return word;
}

// Not against chosen values: see hpack.h.
constexpr uint32_t hash_of(std::string_view text, uint32_t seed) {
  const auto mix = [](uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9E37'79B9'7F4A'7C15;
    return hash ^ (hash >> 32);
  };
  uint64_t hash = seed ^ text.size();
  const char* at = text.data();
  size_t left = text.size();
  for (; left >= 8; at += 8, left -= 8) hash = mix(hash, load(at, 8));
  if (left >= 4) {
    hash = mix(hash, load(at, 4) << 32 | load(at + left - 4, 4));
  } else if (left > 0) {
    hash = mix(hash, load(at, 1) | load(at + left / 2, 1) << 8 | load(at + left - 1, 1) << 16);
  }
  return static_cast<uint32_t>(hash);
}

constexpr size_t kStaticSlots = 256;
constexpr std::array<uint8_t, kStaticSlots> kStaticByName = [] {
  std::array<uint8_t, kStaticSlots> slots{};
  for (size_t i = 0; i < kStaticFields; ++i) {
    if (i > 0 && kStatic[i].name == kStatic[i - 1].name) continue;
    size_t slot = hash_of(kStatic[i].name, 0) % kStaticSlots;
    while (slots[slot] != 0) slot = (slot + 1) % kStaticSlots;
    slots[slot] = static_cast<uint8_t>(i + 1);
  }
  return slots;
}();

// For the short texts here, this costs less than the C library.
bool is_same(std::string_view one, std::string_view other) {
  const size_t bytes = one.size();
  if (bytes != other.size()) return false;
  const char *a = one.data(), *b = other.data();
  if (bytes >= 8) {
    for (size_t at = 0; at + 8 < bytes; at += 8) {
      if (load(a + at, 8) != load(b + at, 8)) return false;
    }
    return load(a + bytes - 8, 8) == load(b + bytes - 8, 8);
  }
  if (bytes >= 4) return load(a, 4) == load(b, 4) && load(a + bytes - 4, 4) == load(b + bytes - 4, 4);
  for (size_t at = 0; at < bytes; ++at) {
    if (a[at] != b[at]) return false;
  }
  return true;
}

// The first static entry with this name, or 0.
size_t static_name(std::string_view name, uint32_t name_hash) {
  for (size_t slot = name_hash % kStaticSlots; kStaticByName[slot] != 0; slot = (slot + 1) % kStaticSlots) {
    if (is_same(kStatic[kStaticByName[slot] - 1].name, name)) return kStaticByName[slot];
  }
  return 0;
}

// The static entry with this name and value, or 0. `first`: the first with the name.
size_t static_field(size_t first, std::string_view name, std::string_view value) {
  if (first == 0) return 0;
  for (size_t i = first; !kStatic[i - 1].value.empty() && kStatic[i - 1].name == name; ++i) {
    if (kStatic[i - 1].value == value) return i;
  }
  return 0;
}

constexpr size_t kEntryBytes = 32;  // RFC 7541 §4.1: what an entry counts beside its texts

enum : uint8_t { kPlain = 0x00, kNever = 0x10, kInsert = 0x40, kIndexed = 0x80 };

// Values of these hardly ever come again. Credentials must not even be put into the tables of further hops (RFC 7541
// §7.1.3); a long cookie cannot be guessed, so a table does no harm.
uint8_t form_of(size_t first, size_t value_bytes) {
  constexpr size_t kPath = 4, kAge = 21, kAuthorization = 23, kContentLength = 28, kCookie = 32, kEtag = 34,
                   kIfModifiedSince = 40, kIfNoneMatch = 41, kLocation = 46, kProxyAuthorization = 49, kSetCookie = 55;
  constexpr size_t kGuessableBytes = 20;
  switch (first) {
    case kPath:
    case kAge:
    case kContentLength:
    case kEtag:
    case kIfModifiedSince:
    case kIfNoneMatch:
    case kLocation:
    case kSetCookie:
      return kPlain;
    case kAuthorization:
    case kProxyAuthorization:
      return kNever;
    case kCookie:
      return value_bytes < kGuessableBytes ? kNever : kInsert;
    default:
      return kInsert;
  }
}

// RFC 7541 §5.1: `number` in the low bits of the first byte, and in more bytes if it does not fit.
char* put_number(char* out, uint8_t first, uint8_t most, size_t number) {
  if (number < most) {
    *out++ = static_cast<char>(first | number);
    return out;
  }
  *out++ = static_cast<char>(first | most);
  for (number -= most; number >= 128; number >>= 7) *out++ = static_cast<char>(number | 128);
  *out++ = static_cast<char>(number);
  return out;
}

// Writes at most 7 bytes beyond `end`, and nothing more once `end` is reached. Returns where it stopped.
char* put_codes(char* out, const char* end, std::string_view text) {
  uint64_t bits = 0;
  uint32_t count = 0;
  for (const char c : text) {
    const Code code = kCodes[static_cast<uint8_t>(c)];
    bits = bits << code.count | code.bits;
    count += code.count;
    if (count < 32) continue;
    if (out >= end) return out;
    count -= 32;
    const uint32_t word = __builtin_bswap32(static_cast<uint32_t>(bits >> count));
    std::memcpy(out, &word, sizeof word);
    out += sizeof word;
  }
  for (; count >= 8; count -= 8) *out++ = static_cast<char>(bits >> (count - 8));
  if (count > 0) *out++ = static_cast<char>(bits << (8 - count) | (0xffu >> count));  // §5.2: ones fill the last byte
  return out;
}

char* put_plain_text(char* out, std::string_view text) {
  out = put_number(out, 0, 0x7f, text.size());
  return std::copy(text.begin(), text.end(), out);
}

// §5.2: in Huffman's code if that is shorter.
char* put_text(char* out, std::string_view text) {
  constexpr uint8_t kHuffman = 0x80, kMost = 0x7f;
  if (text.size() < kMost) {
    char* const begin = out + 1;  // one byte is enough for the length
    const auto coded = static_cast<size_t>(put_codes(begin, begin + text.size(), text) - begin);
    if (coded < text.size()) {
      *out = static_cast<char>(kHuffman | coded);
      return begin + coded;
    }
  } else {
    uint64_t bits = 0;
    for (const char c : text) bits += kCodeBits[static_cast<uint8_t>(c)];
    const size_t coded = (bits + 7) / 8;
    if (coded < text.size()) {
      out = put_number(out, kHuffman, kMost, coded);
      return put_codes(out, out + coded, text);
    }
  }
  return put_plain_text(out, text);
}

char* put_indexed(char* out, size_t index) { return put_number(out, kIndexed, 0x7f, index); }

// `name_index`: of an entry with the name; 0: there is none.
char* put_literal(char* out, uint8_t form, size_t name_index, std::string_view name, std::string_view value) {
  out = put_number(out, form, form == kInsert ? 0x3f : 0x0f, name_index);
  if (name_index == 0) out = put_text(out, name);
  return put_text(out, value);
}

}  // namespace

void HpackEncoder::limit_table(size_t bytes) {
  limit_ = std::min(bytes, kTableBytes);
  smallest_ = std::min(smallest_, limit_);
  while (bytes_ > limit_) drop_oldest();
}

char* HpackEncoder::begin(char* out) {
  constexpr uint8_t kTableSize = 0x20, kMost = 0x1f;
  next_guess_ = 0;
  if (smallest_ == told_ && limit_ == told_) return out;
  if (smallest_ < limit_) out = put_number(out, kTableSize, kMost, smallest_);  // RFC 7541 §4.2
  out = put_number(out, kTableSize, kMost, limit_);
  told_ = smallest_ = limit_;
  return out;
}

char* HpackEncoder::add(char* out, std::string_view name, std::string_view value, Indexing indexing) {
  Guess spare;
  Guess& guess = next_guess_ < kGuesses ? guesses_[next_guess_++] : spare;
  if (char* const end = add_as_guessed(guess, out, name, value, indexing)) return end;

  const uint32_t name_hash = hash_of(name, 0);
  const size_t in_static = static_name(name, name_hash);
  guess = {static_cast<uint8_t>(in_static), false, 0};
  if (const size_t index = static_field(in_static, name, value)) {
    guess.in_static = static_cast<uint8_t>(index);
    return put_indexed(out, index);
  }
  const uint8_t form = form_of(in_static, value.size());
  if (form != kInsert) return put_literal(out, form, in_static, name, value);

  const uint32_t hash = hash_of(value, name_hash);
  size_t place = indexing == Indexing::by_name ? find(name, value, hash) : kEntries;
  const bool found = place != kEntries;
  if (!found && in_static == 0) place = find_name(name, name_hash);
  if (place != kEntries) guess = {static_cast<uint8_t>(in_static), true, static_cast<uint8_t>(place)};
  if (found) return put_indexed(out, index_of(place));

  const size_t name_index = place != kEntries ? index_of(place) : in_static;
  const bool fits = name.size() + value.size() + kEntryBytes <= limit_ / 4 * 3;
  if (!fits || (indexing == Indexing::name_only && name_index != 0)) {
    return put_literal(out, kPlain, name_index, name, value);
  }
  out = put_literal(out, kInsert, name_index, name, value);
  guess = {static_cast<uint8_t>(in_static), true, static_cast<uint8_t>(inserted_ % kEntries)};
  insert(name, value, name_hash, hash);
  return out;
}

char* HpackEncoder::add_as_guessed(const Guess& guess, char* out, std::string_view name, std::string_view value,
                                   Indexing indexing) const {
  if (guess.has_place) {
    if (!is_named(guess.place, name)) return nullptr;
    if (indexing == Indexing::name_only) {
      // To code an id costs both sides more than the few bytes are worth.
      return put_plain_text(put_number(out, kPlain, 0x0f, index_of(guess.place)), value);
    }
    return has_value(guess.place, value) ? put_indexed(out, index_of(guess.place)) : nullptr;
  }
  if (guess.in_static == 0) return nullptr;
  const StaticField& field = kStatic[guess.in_static - 1];
  if (!is_same(field.name, name)) return nullptr;
  if (!field.value.empty()) return is_same(field.value, value) ? put_indexed(out, guess.in_static) : nullptr;
  const uint8_t form = form_of(guess.in_static, value.size());
  return form == kInsert ? nullptr : put_literal(out, form, guess.in_static, name, value);
}

bool HpackEncoder::is_named(size_t place, std::string_view name) const {
  if (age(place) >= count_) return false;
  const Entry& entry = table_->entries[place];
  return is_same({table_->text.data() + entry.at, entry.name_bytes}, name);
}

bool HpackEncoder::has_value(size_t place, std::string_view value) const {
  const Entry& entry = table_->entries[place];
  return is_same({table_->text.data() + entry.at + entry.name_bytes, entry.value_bytes}, value);
}

size_t HpackEncoder::find(std::string_view name, std::string_view value, uint32_t hash) const {
  if (count_ == 0) return kEntries;
  for (size_t probe = 0; probe < kProbes; ++probe) {
    const size_t place = table_->index[(hash + probe) % kIndexSlots];
    if (table_->entries[place].hash == hash && is_named(place, name) && has_value(place, value)) return place;
  }
  return kEntries;
}

size_t HpackEncoder::find_name(std::string_view name, uint32_t name_hash) const {
  if (count_ == 0) return kEntries;
  const size_t place = table_->names[name_hash % kNameSlots];
  return is_named(place, name) ? place : kEntries;
}

size_t HpackEncoder::index_of(size_t place) const { return kStaticFields + 1 + age(place); }

void HpackEncoder::drop_oldest() {
  const Entry& oldest = table_->entries[(inserted_ - count_) % kEntries];
  bytes_ -= oldest.bytes() + kEntryBytes;
  --count_;
}

// The texts are in a ring, in the order of their entries. The peer drops entries by their bytes alone, so it still has
// all that are here.
void HpackEncoder::insert(std::string_view name, std::string_view value, uint32_t name_hash, uint32_t hash) {
  if (!table_) table_ = std::make_unique<Table>();
  Table& table = *table_;
  const size_t bytes = name.size() + value.size();
  while (bytes_ + bytes + kEntryBytes > limit_ || count_ == kEntries) drop_oldest();
  const auto oldest_at = [&] { return table.entries[(inserted_ - count_) % kEntries].at; };
  if (text_end_ + bytes > table.text.size()) {
    while (count_ > 0 && oldest_at() >= text_end_) drop_oldest();
    text_end_ = 0;
  }
  while (count_ > 0 && oldest_at() >= text_end_ && oldest_at() < text_end_ + bytes) drop_oldest();

  const auto place = static_cast<uint8_t>(inserted_ % kEntries);
  table.entries[place] = {hash, static_cast<uint16_t>(text_end_), static_cast<uint16_t>(name.size()),
                          static_cast<uint16_t>(value.size())};
  char* const text = std::copy(name.begin(), name.end(), table.text.data() + text_end_);
  std::copy(value.begin(), value.end(), text);
  text_end_ += bytes;
  bytes_ += bytes + kEntryBytes;

  size_t slot = hash % kIndexSlots;
  for (size_t probe = 0; probe < kProbes; ++probe) {
    const size_t other = (hash + probe) % kIndexSlots;
    if (age(table.index[other]) > age(table.index[slot])) slot = other;
  }
  table.index[slot] = place;
  table.names[name_hash % kNameSlots] = place;
  ++inserted_;
  ++count_;
}

}  // namespace tidegate::l7
