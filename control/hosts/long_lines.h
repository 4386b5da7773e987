// SPDX-License-Identifier: Apache-2.0
// LongLines: cuts a stream of bytes into lines. A line of megabytes stays in pieces. So the event loop never copies the
// received bytes again when more bytes come.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tidegate {

class LongLines {
 public:
  static constexpr size_t kPieceBytes = 256 << 10;
  // A line without its end.
  struct Line {
    std::vector<std::string> pieces;
    size_t size = 0;
    std::string joined() const {
      std::string text;
      text.reserve(size);
      for (const std::string& piece : pieces) text += piece;
      return text;
    }
  };

  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t end = std::min(bytes.find('\n'), bytes.size());
      add(bytes.substr(0, end));
      if (end == bytes.size()) return;
      whole_.push_back(std::exchange(last_, {}));
      bytes.remove_prefix(end + 1);
    }
  }
  bool has_line() const { return !whole_.empty(); }
  // The first whole line; there must be one.
  Line take() {
    Line line = std::move(whole_.front());
    whole_.pop_front();
    bytes_ -= line.size;
    return line;
  }
  size_t size() const { return bytes_; }  // of all that is not taken
  void clear() { *this = {}; }

 private:
  void add(std::string_view bytes) {
    last_.size += bytes.size();
    bytes_ += bytes.size();
    while (!bytes.empty()) {
      if (last_.pieces.empty() || last_.pieces.back().size() == kPieceBytes) {
        const bool further = !last_.pieces.empty();
        last_.pieces.emplace_back();
        if (further) last_.pieces.back().reserve(kPieceBytes);
      }
      std::string& piece = last_.pieces.back();
      const size_t count = std::min(bytes.size(), kPieceBytes - piece.size());
      piece += bytes.substr(0, count);
      bytes.remove_prefix(count);
    }
  }

  std::deque<Line> whole_;
  Line last_;  // without its end yet
  size_t bytes_ = 0;
};

}  // namespace tidegate
