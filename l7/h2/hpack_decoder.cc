// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/hpack_decoder.h"

#include <algorithm>
#include <cstring>

#include "core/assert.h"
#include "l7/h2/hpack_code.h"
#include "l7/h2/huffman.h"

namespace tidegate::l7 {
namespace {

struct StaticTraits {
  NameTraits name;
  uint8_t value_class;
};

const std::array<StaticTraits, hpack::kStaticFields> kStaticTraits = [] {
  std::array<StaticTraits, hpack::kStaticFields> traits;
  for (size_t i = 0; i < traits.size(); ++i) {
    traits[i] = {traits_of_name(hpack::kStatic[i].name), class_of_value(hpack::kStatic[i].value)};
  }
  return traits;
}();

}  // namespace

HpackDecoder::Step HpackDecoder::next(Http2Field& field, HpackScratch& scratch) {
  constexpr uint8_t kIndexed = 0x80, kInsert = 0x40, kResize = 0x20;
  while (at_ < end_) {
    const auto first = static_cast<uint8_t>(*at_);
    if ((first & kIndexed) != 0) {
      may_resize_ = false;
      return read_indexed(field);
    }
    if ((first & (kInsert | kResize)) != kResize) {
      may_resize_ = false;
      return read_literal(first, field, scratch);
    }
    if (const Step step = read_resize(); step != Step::field) return step;
  }
  return last_ ? Step::end : Step::more;
}

// RFC 7541 §5.1.
HpackDecoder::Got HpackDecoder::read_number(const char*& at, uint8_t most, uint32_t& number) const {
  if (at == end_) return Got::more;
  number = static_cast<uint8_t>(*at++) & most;
  if (number < most) return Got::yes;
  for (uint32_t shift = 0;; shift += 7) {
    if (at == end_) return Got::more;
    const auto byte = static_cast<uint8_t>(*at++);
    const uint32_t low = byte & 0x7f;
    if (shift >= 32 || (UINT32_MAX >> shift) < low || UINT32_MAX - (low << shift) < number) return Got::failed;
    number += low << shift;
    if ((byte & 0x80) == 0) return Got::yes;
  }
}

// §5.2.
HpackDecoder::Got HpackDecoder::read_text(const char*& at, bool of_name, HpackScratch& scratch,
                                          std::string_view& text) const {
  if (at == end_) return Got::more;
  const bool coded = (static_cast<uint8_t>(*at) & 0x80) != 0;
  uint32_t bytes;
  if (const Got got = read_number(at, 0x7f, bytes); got != Got::yes) return got;
  if (bytes > kMostTextBytes) return Got::failed;
  if (static_cast<size_t>(end_ - at) < bytes) return Got::more;
  text = {at, bytes};
  at += bytes;
  if (!coded) return Got::yes;
  const size_t room = hpack::huffman_room(bytes);
  char* const begin = of_name ? scratch.name_room(room) : scratch.value_room(room);
  const char* const end = hpack::decode_huffman(text, begin);
  if (end == nullptr) return Got::failed;
  text = {begin, static_cast<size_t>(end - begin)};
  return Got::yes;
}

// §6.1.
HpackDecoder::Step HpackDecoder::read_indexed(Http2Field& field) {
  const char* at = at_;
  uint32_t index;
  if (const Got got = read_number(at, 0x7f, index); got != Got::yes) {
    return got == Got::more ? unfinished() : Step::failed;
  }
  if (!set_field(index, true, field)) return Step::failed;
  at_ = at;
  return Step::field;
}

// §6.2.
HpackDecoder::Step HpackDecoder::read_literal(uint8_t first, Http2Field& field, HpackScratch& scratch) {
  const bool inserts = (first & 0x40) != 0;
  const char* at = at_;
  uint32_t index;
  Got got = read_number(at, inserts ? 0x3f : 0x0f, index);
  if (got == Got::yes && index == 0) {
    got = read_text(at, true, scratch, field.name);
  } else if (got == Got::yes && !set_field(index, false, field)) {
    return Step::failed;
  }
  if (got == Got::yes) got = read_text(at, false, scratch, field.value);
  if (got != Got::yes) return got == Got::more ? unfinished() : Step::failed;
  if (index == 0) {
    field.traits = traits_of_name(field.name);
    field.static_name = 0;
  }
  field.value_class = class_of_value(field.value);
  at_ = at;
  if (!inserts) return Step::field;
  if (index > hpack::kStaticFields && field.static_name == 0) {  // its entry may have to give way to the new one
    char* const name = scratch.name_room(field.name.size());
    std::copy(field.name.begin(), field.name.end(), name);
    field.name = {name, field.name.size()};
  }
  insert(field);
  return Step::field;
}

// §6.3. Step::field: the input goes on.
HpackDecoder::Step HpackDecoder::read_resize() {
  if (!may_resize_) return Step::failed;
  const char* at = at_;
  uint32_t bytes;
  if (const Got got = read_number(at, 0x1f, bytes); got != Got::yes) {
    return got == Got::more ? unfinished() : Step::failed;
  }
  if (bytes > kTableBytes) return Step::failed;
  limit_ = static_cast<uint16_t>(bytes);
  while (bytes_ > limit_) drop_oldest();
  at_ = at;
  return Step::field;
}

bool HpackDecoder::set_field(uint32_t index, bool with_value, Http2Field& field) const {
  if (index == 0) return false;
  if (index <= hpack::kStaticFields) {
    const hpack::StaticField& known = hpack::kStatic[index - 1];
    const StaticTraits& traits = kStaticTraits[index - 1];
    field.name = known.name;
    field.traits = traits.name;
    field.static_name = static_cast<uint8_t>(index);
    if (!with_value) return true;
    field.value = known.value;
    field.value_class = traits.value_class;
    return true;
  }
  const size_t age = index - hpack::kStaticFields - 1;
  if (age >= count_) return false;
  const Entry& found = entry(age);
  const char* const text = text_.get() + found.at;
  field.name =
      found.static_name != 0 ? hpack::kStatic[found.static_name - 1].name : std::string_view(text, found.name_bytes);
  field.traits = found.traits;
  field.static_name = found.static_name;
  if (!with_value) return true;
  field.value = {text + found.name_bytes, found.value_bytes};
  field.value_class = found.value_class;
  return true;
}

void HpackDecoder::drop_oldest() {
  TIDEGATE_ASSERT(count_ > 0, "a table with bytes has an entry");
  bytes_ = static_cast<uint16_t>(bytes_ - entry(count_ - 1u).bytes() - kEntryBytes);
  --count_;
}

// §4.4. A field that is larger than the table empties it.
void HpackDecoder::insert(const Http2Field& field) {
  const size_t text_bytes = field.name.size() + field.value.size();
  while (count_ > 0 && bytes_ + text_bytes + kEntryBytes > limit_) drop_oldest();
  if (text_bytes + kEntryBytes > limit_) return;
  if (!entries_) entries_ = std::make_unique_for_overwrite<std::array<Entry, kEntries>>();
  make_text_room(text_bytes);
  if (text_end_ + text_bytes > text_bytes_) text_end_ = 0;
  (*entries_)[inserted_ % kEntries] = {text_end_,
                                       static_cast<uint16_t>(field.name.size()),
                                       static_cast<uint16_t>(field.value.size()),
                                       field.traits,
                                       field.value_class,
                                       field.static_name};
  char* const text = std::copy(field.name.begin(), field.name.end(), text_.get() + text_end_);
  std::copy(field.value.begin(), field.value.end(), text);
  text_end_ = static_cast<uint16_t>(text_end_ + text_bytes);
  bytes_ = static_cast<uint16_t>(bytes_ + text_bytes + kEntryBytes);
  ++inserted_;
  ++count_;
}

// In a ring of twice the bytes that are in use, there is room for the new text after the newest one, or else at the
// beginning.
void HpackDecoder::make_text_room(size_t bytes) {
  const size_t used = bytes_ - count_ * kEntryBytes;
  size_t room = std::max<size_t>(text_bytes_, kFirstTextBytes);
  while (room < 2 * (used + bytes)) room *= 2;
  if (room == text_bytes_) return;
  TIDEGATE_ASSERT(room <= kMostTableText, "the texts of a table are smaller than its limit");
  std::unique_ptr<char[]> larger = std::make_unique_for_overwrite<char[]>(room);
  char* out = larger.get();
  for (size_t age = count_; age-- > 0;) {
    Entry& moved = (*entries_)[(inserted_ - 1 - age) % kEntries];
    const char* const text = text_.get() + moved.at;
    moved.at = static_cast<uint16_t>(out - larger.get());
    out = std::copy(text, text + moved.bytes(), out);
  }
  text_ = std::move(larger);
  text_end_ = static_cast<uint16_t>(out - text_.get());
  text_bytes_ = static_cast<uint16_t>(room);
}

}  // namespace tidegate::l7
