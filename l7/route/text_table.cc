// SPDX-License-Identifier: Apache-2.0
#include "l7/route/text_table.h"

#include <algorithm>
#include <utility>

namespace tidegate::l7 {

void TextTable::add(uint32_t owner, std::string_view text, uint32_t value) {
  if (++count_ * 2 > slots_.size()) grow();
  const uint64_t hashed = hash(owner, text);
  Slot slot;
  slot.tag = static_cast<uint32_t>(hashed >> 32);
  slot.owner = owner;
  slot.value = value;
  slot.bytes = static_cast<uint32_t>(text.size());
  slot.head.fill('\0');
  text.copy(slot.head.data(), kHeadBytes);
  slot.rest = static_cast<uint32_t>(rests_.size());
  if (text.size() > kHeadBytes) rests_ += text.substr(kHeadBytes);
  place(hashed, slot);
}

void TextTable::place(uint64_t hashed, const Slot& slot) {
  size_t at = hashed & (slots_.size() - 1);
  while (slots_[at].value != kAbsent) at = (at + 1) & (slots_.size() - 1);
  slots_[at] = slot;
}

void TextTable::grow() {
  const std::vector<Slot> before = std::exchange(slots_, std::vector<Slot>(std::max<size_t>(16, slots_.size() * 2)));
  std::string text;
  for (const Slot& slot : before) {
    if (slot.value == kAbsent) continue;
    text.assign(slot.head.data(), std::min<size_t>(slot.bytes, kHeadBytes));
    if (slot.bytes > kHeadBytes) text.append(rests_, slot.rest, slot.bytes - kHeadBytes);
    place(hash(slot.owner, text), slot);
  }
}

bool TextTable::holds(const Slot& slot, std::string_view text) const {
  if (slot.bytes != text.size()) return false;
  const std::string_view head = text.substr(0, kHeadBytes);
  if (head != std::string_view(slot.head.data(), head.size())) return false;
  return text.size() <= kHeadBytes ||
         text.substr(kHeadBytes) == std::string_view(rests_).substr(slot.rest, text.size() - kHeadBytes);
}

uint32_t TextTable::find(uint32_t owner, std::string_view text) const {
  if (slots_.empty()) return kAbsent;
  const uint64_t hashed = hash(owner, text);
  const auto tag = static_cast<uint32_t>(hashed >> 32);
  for (size_t at = hashed & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[at];
    if (slot.value == kAbsent) return kAbsent;
    if (slot.tag == tag && slot.owner == owner && holds(slot, text)) return slot.value;
  }
}

}  // namespace tidegate::l7
