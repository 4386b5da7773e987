// SPDX-License-Identifier: Apache-2.0
// IdleList: connections that nobody would miss, the one idle longest first. Putting one in, taking it out and finding
// the oldest cost O(1) and no memory: the links lie in the connections.
//
// Threads: one. The list owns nothing; a member must leave it before it dies.
#pragma once

#include <cassert>
#include <cstddef>

namespace tidegate {

// Base of what can be in an IdleList, in one at a time.
class IdleLink {
 public:
  IdleLink() = default;
  IdleLink(const IdleLink&) = delete;
  IdleLink& operator=(const IdleLink&) = delete;
  bool is_idle() const { return next_ != nullptr; }

 protected:
  ~IdleLink() { assert(!is_idle()); }

 private:
  template <class T>
  friend class IdleList;
  IdleLink* previous_ = nullptr;
  IdleLink* next_ = nullptr;
};

template <class T>  // derives from IdleLink
class IdleList {
 public:
  IdleList() { head_.previous_ = head_.next_ = &head_; }
  ~IdleList() { head_.previous_ = head_.next_ = nullptr; }

  // Idle from now on. One that is in the list already keeps its place.
  void add(T& member) {
    IdleLink& link = member;
    if (link.is_idle()) return;
    link.previous_ = head_.previous_;
    link.next_ = &head_;
    link.previous_->next_ = &link;
    head_.previous_ = &link;
    ++size_;
  }
  // Busy, or at its end. Nothing happens to one that is not in the list.
  void remove(T& member) {
    IdleLink& link = member;
    if (!link.is_idle()) return;
    link.previous_->next_ = link.next_;
    link.next_->previous_ = link.previous_;
    link.previous_ = link.next_ = nullptr;
    --size_;
  }
  T* oldest() { return size_ == 0 ? nullptr : static_cast<T*>(head_.next_); }
  // The oldest for which `fits(member)` is true among the `looks` that are idle longest.
  template <class Fits>
  T* oldest_that(Fits&& fits, size_t looks) {
    for (IdleLink* link = head_.next_; link != &head_ && looks > 0; link = link->next_, --looks) {
      if (fits(*static_cast<T*>(link))) return static_cast<T*>(link);
    }
    return nullptr;
  }
  size_t size() const { return size_; }

 private:
  struct Head : IdleLink {};
  Head head_;
  size_t size_ = 0;
};

}  // namespace tidegate
