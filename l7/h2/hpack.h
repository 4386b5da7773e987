// SPDX-License-Identifier: Apache-2.0
// HpackEncoder: the header blocks of what we send on one HTTP/2 connection (RFC 7541).
//
// Every block that leaves the connection must come from its one encoder, in the order in which blocks are sent, because
// each block changes the table that the peer keeps. So a block is encoded when its frame is sent, not earlier.
//
// The encoder's table holds the newest entries of the peer's, at most kEntries. Heads of one connection resemble each
// other: first the entry is tried that the field at the same place of the last block had. If that is another one, a
// small hash index is asked. What the index has lost is sent as text again, which costs bytes and is never wrong. So
// nobody can make a look-up slow by choosing values.
//
// Threads: one at a time. Nothing here allocates, apart from the table with the first field that goes into it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace tidegate::l7 {

// What the encoder does with a field's value.
enum class Indexing : uint8_t {
  by_name,    // as the name says: those that differ from message to message stay out of the table
  name_only,  // the value will not come again, but the name will
};

class HpackEncoder {
 public:
  // The peer's table, unless its SETTINGS say less (RFC 9113 §6.5.2). More than this is never used.
  static constexpr size_t kTableBytes = 4096;
  // Room that a block of `fields` fields needs at most; `text_bytes` is the sum of their names and values.
  static constexpr size_t room_for(size_t text_bytes, size_t fields) {
    return text_bytes + (fields + 1) * kMostBytesPerField;
  }

  // Each value of SETTINGS_HEADER_TABLE_SIZE that the peer sends, in order.
  void limit_table(size_t bytes);

  // A block is begin() and then add() for each field. They write at `out`, and return the end of what they wrote.
  // `name` is in lower case.
  char* begin(char* out);
  char* add(char* out, std::string_view name, std::string_view value, Indexing indexing = Indexing::by_name);

 private:
  static constexpr size_t kMostBytesPerField = 24;  // three lengths, and what a text in Huffman's code writes too much
  static constexpr size_t kEntries = 64, kIndexSlots = 128, kNameSlots = 64, kProbes = 4, kGuesses = 24;
  static_assert(kEntries <= 256 && (kEntries & (kEntries - 1)) == 0);
  struct Entry {
    uint32_t hash;
    uint16_t at;
    uint16_t name_bytes;
    uint16_t value_bytes;
    uint16_t bytes() const { return static_cast<uint16_t>(name_bytes + value_bytes); }
  };
  struct Table {
    std::array<Entry, kEntries> entries;  // a ring: the entry that is inserted n-th is at n % kEntries
    std::array<uint8_t, kIndexSlots> index{};
    std::array<uint8_t, kNameSlots> names{};
    std::array<char, kTableBytes> text;
  };

  // What the field at one place of the last block was. It need not be right: the texts are always compared.
  struct Guess {
    uint8_t in_static = 0;   // static entry with its name, and if `place` is not set, maybe its value
    bool has_place = false;  // an entry of the table has its name, and maybe its value
    uint8_t place = 0;
  };

  // Where the field is written if a guess is right; otherwise null.
  char* add_as_guessed(const Guess& guess, char* out, std::string_view name, std::string_view value,
                       Indexing indexing) const;
  size_t age(size_t place) const { return (inserted_ - 1 - place) % kEntries; }
  bool is_named(size_t place, std::string_view name) const;
  bool has_value(size_t place, std::string_view value) const;
  // Return the place, or kEntries.
  size_t find(std::string_view name, std::string_view value, uint32_t hash) const;
  size_t find_name(std::string_view name, uint32_t name_hash) const;
  size_t index_of(size_t place) const;  // as in a block
  void insert(std::string_view name, std::string_view value, uint32_t name_hash, uint32_t hash);
  void drop_oldest();

  std::array<Guess, kGuesses> guesses_;  // of the fields of a block, in order
  size_t next_guess_ = 0;
  std::unique_ptr<Table> table_;  // null: nothing was ever inserted
  uint32_t inserted_ = 0;         // entries that were ever inserted
  uint32_t count_ = 0;            // the newest entries, which are still there
  size_t bytes_ = 0;              // of these, as RFC 7541 §4.1 counts
  size_t text_end_ = 0;           // where the text of the next entry begins
  size_t limit_ = kTableBytes;
  size_t told_ = kTableBytes;      // the limit that the peer was told, or begins with
  size_t smallest_ = kTableBytes;  // the lowest limit since then
};

}  // namespace tidegate::l7
