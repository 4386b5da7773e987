// SPDX-License-Identifier: Apache-2.0
// HpackDecoder: the header blocks of what we receive on one HTTP/2 connection (RFC 7541).
//
// A block comes in one or more pieces, and its fields are taken out one by one:
//
//   begin_block() → { set_input(piece, last) → next() … → more | end } ; the bytes after taken() are given again with
//   the next piece.
//
// The table is a ring of entries and a ring of bytes, in which the text of one entry is never split. The ring of bytes
// grows to twice the table, so that a gap at its end never displaces an entry that the peer still has. Each entry
// remembers what its name and value say (Http2Field).
//
// After a failure the decoder must not be used any more: the peer's table and ours differ (RFC 9113 §4.3).
//
// Threads: one at a time. Nothing here allocates, apart from the table, which grows with what is put into it, and texts
// that do not fit in HpackScratch.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "l7/wire/http2_field.h"

namespace tidegate::l7 {

// Where texts in Huffman's code are written. A field is valid as long as its scratch, until the next one is taken.
class HpackScratch {
 public:
  HpackScratch() {}  // not defaulted, because that would write the arrays
  char* name_room(size_t bytes) { return room(name_, sizeof name_, long_name_, bytes); }
  char* value_room(size_t bytes) { return room(value_, sizeof value_, long_value_, bytes); }

 private:
  static char* room(char* usual, size_t usual_bytes, std::unique_ptr<char[]>& other, size_t bytes) {
    if (bytes <= usual_bytes) return usual;
    other = std::make_unique_for_overwrite<char[]>(bytes);
    return other.get();
  }
  char name_[512];
  char value_[4096];
  std::unique_ptr<char[]> long_name_, long_value_;
};

class HpackDecoder {
 public:
  // What SETTINGS_HEADER_TABLE_SIZE is unless it is sent, and we do not send it.
  static constexpr size_t kTableBytes = 4096;
  // A name or a value that is longer is a failure.
  static constexpr size_t kMostTextBytes = 65'536;

  enum class Step : uint8_t {
    field,
    more,    // the next field is not complete
    end,     // the block was complete
    failed,  // RFC 9113 §4.3: COMPRESSION_ERROR
  };

  void begin_block() { may_resize_ = true; }
  // `last`: the block ends with it.
  void set_input(std::string_view input, bool last) {
    begin_ = at_ = input.data();
    end_ = begin_ + input.size();
    last_ = last;
  }
  Step next(Http2Field& field, HpackScratch& scratch);
  // Bytes of the input that whole fields have taken.
  size_t taken() const { return static_cast<size_t>(at_ - begin_); }

  size_t table_bytes() const { return bytes_; }  // as RFC 7541 §4.1 counts
  size_t room() const { return text_bytes_; }    // bytes of memory for texts

 private:
  static constexpr size_t kEntryBytes = 32;  // RFC 7541 §4.1: what an entry counts beside its texts
  static constexpr size_t kEntries = kTableBytes / kEntryBytes, kFirstTextBytes = 1024,
                          kMostTableText = 2 * kTableBytes;
  struct Entry {
    uint16_t at;
    uint16_t name_bytes;
    uint16_t value_bytes;
    NameTraits traits;
    uint8_t value_class;
    uint8_t static_name;
    size_t bytes() const { return size_t{name_bytes} + value_bytes; }
  };
  enum class Got : uint8_t { yes, more, failed };

  Got read_number(const char*& at, uint8_t most, uint32_t& number) const;
  Got read_text(const char*& at, bool of_name, HpackScratch& scratch, std::string_view& text) const;
  Step read_indexed(Http2Field& field);
  Step read_literal(uint8_t first, Http2Field& field, HpackScratch& scratch);
  Step read_resize();
  Step unfinished() const { return last_ ? Step::failed : Step::more; }
  // False: there is no such entry.
  bool set_field(uint32_t index, bool with_value, Http2Field& field) const;
  const Entry& entry(size_t age) const { return (*entries_)[(inserted_ - 1 - age) % kEntries]; }
  void insert(const Http2Field& field);
  void make_text_room(size_t bytes);
  void drop_oldest();

  const char* begin_ = nullptr;  // the input
  const char* at_ = nullptr;     // what follows whole fields
  const char* end_ = nullptr;
  std::unique_ptr<std::array<Entry, kEntries>> entries_;  // a ring; null: nothing was ever inserted
  std::unique_ptr<char[]> text_;
  uint32_t inserted_ = 0;  // entries that were ever inserted
  uint16_t count_ = 0;     // the newest entries, which are still there
  uint16_t text_end_ = 0;  // where the text of the next entry begins
  uint16_t text_bytes_ = 0;
  uint16_t bytes_ = 0;
  uint16_t limit_ = kTableBytes;
  bool last_ = false;
  bool may_resize_ = false;  // RFC 7541 §4.2: only at the beginning of a block
};

}  // namespace tidegate::l7
