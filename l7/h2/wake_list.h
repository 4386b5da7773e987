// SPDX-License-Identifier: Apache-2.0
// WakeList: the streams of one connection that are to be called, each once, in the order in which they were added.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace tidegate::l7 {

// `Stream` has a bool awake_: whether it is in the list.
template <class Stream>
class WakeList {
 public:
  bool empty() const { return next_ == list_.size(); }
  size_t size() const { return list_.size() - next_; }  // counts streams that were removed, too
  size_t room() const { return list_.capacity(); }
  void add(Stream& stream) {
    if (stream.awake_) return;
    stream.awake_ = true;
    if (next_ >= kMostTaken && next_ >= size()) drop_taken();
    list_.push_back(&stream);
  }
  // Takes the first stream off the list. Null if there is none.
  Stream* take() {
    while (next_ < list_.size()) {
      Stream* const stream = list_[next_++];
      if (next_ == list_.size()) clear();
      if (stream == nullptr) continue;
      stream->awake_ = false;
      return stream;
    }
    return nullptr;
  }
  void remove(Stream& stream) {
    if (!stream.awake_) return;
    stream.awake_ = false;
    std::replace(list_.begin() + static_cast<ptrdiff_t>(next_), list_.end(), &stream, static_cast<Stream*>(nullptr));
  }

 private:
  static constexpr size_t kMostTaken = 64;

  void clear() {
    list_.clear();
    next_ = 0;
  }
  // So that a list that is never empty does not grow.
  void drop_taken() {
    list_.erase(list_.begin(), list_.begin() + static_cast<ptrdiff_t>(next_));
    next_ = 0;
  }

  std::vector<Stream*> list_;  // in use from next_ on; null: the stream was removed
  size_t next_ = 0;
};

}  // namespace tidegate::l7
