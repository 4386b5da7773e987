// SPDX-License-Identifier: Apache-2.0
// OutBuffer: bytes that wait to be sent. Small ones are collected, large ones are kept as they came, so an answer of
// megabytes is never copied or moved on an event loop.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/limits.h"

namespace tidegate {

class OutBuffer {
 public:
  static constexpr size_t kCopiedBytes = 16 * 1024;  // at most; more are taken as they are

  // Where small bytes are appended; valid until the next call.
  std::string& tail() {
    if (pieces_.empty() || pieces_.back().shared || pieces_.back().own.size() > kHttpKeptBufferBytes) {
      pieces_.emplace_back();
    }
    return pieces_.back().own;
  }
  void append(std::string_view bytes) { tail().append(bytes); }
  void append(std::shared_ptr<const std::string> bytes) {
    if (bytes->size() <= kCopiedBytes) return append(std::string_view(*bytes));
    pieces_.push_back({{}, std::move(bytes)});
  }
  void take(std::string&& bytes) {
    if (bytes.size() <= kCopiedBytes) return append(std::string_view(bytes));
    append(std::make_shared<const std::string>(std::move(bytes)));
  }
  size_t size() const {
    size_t bytes = 0;
    for (const Piece& piece : pieces_) bytes += piece.bytes().size();
    return bytes - sent_;
  }
  // The next bytes to send; empty if there are none.
  std::string_view front() const {
    for (const Piece& piece : pieces_) {
      if (!piece.bytes().empty()) return piece.bytes().substr(sent_);
    }
    return {};
  }
  // `bytes` of front() were sent.
  void consume(size_t bytes) {
    while (!pieces_.empty() && pieces_.front().bytes().empty()) pieces_.erase(pieces_.begin());
    sent_ += bytes;
    if (pieces_.empty() || sent_ < pieces_.front().bytes().size()) return;
    sent_ = 0;
    // The last buffer is kept for later bytes, unless it is large.
    if (pieces_.size() == 1 && !pieces_[0].shared && pieces_[0].own.capacity() <= kHttpKeptBufferBytes) {
      pieces_[0].own.clear();
    } else {
      pieces_.erase(pieces_.begin());
    }
  }

 private:
  struct Piece {
    std::string own;
    std::shared_ptr<const std::string> shared;  // null: `own` counts
    std::string_view bytes() const { return shared ? std::string_view(*shared) : std::string_view(own); }
  };
  std::vector<Piece> pieces_;
  size_t sent_ = 0;  // of the first piece that is not empty
};

}  // namespace tidegate
