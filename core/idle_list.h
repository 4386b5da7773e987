// SPDX-License-Identifier: Apache-2.0
// IdleList: idle connections, the one idle longest first. Adding one, removing one and finding the oldest cost O(1) and
// no memory, because the links are inside the connections.
//
// Threads: one. The list owns nothing. A member must leave it before it is destroyed.
#pragma once

#include <cassert>
#include <cstddef>

namespace tidegate {

// Base class of what can be in an IdleList. An object can be in one list at a time.
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

template <class T>  // T must derive from IdleLink
class IdleList {
 public:
  IdleList() { head_.previous_ = head_.next_ = &head_; }
  ~IdleList() { head_.previous_ = head_.next_ = nullptr; }

  // The member is idle from now on. If it is already in the list, it keeps its place.
  void add(T& member) {
    IdleLink& link = member;
    if (link.is_idle()) return;
    link.previous_ = head_.previous_;
    link.next_ = &head_;
    link.previous_->next_ = &link;
    head_.previous_ = &link;
    ++size_;
  }
  // Call it when the member is busy or ends. Does nothing if the member is not in the list.
  void remove(T& member) {
    IdleLink& link = member;
    if (!link.is_idle()) return;
    link.previous_->next_ = link.next_;
    link.next_->previous_ = link.previous_;
    link.previous_ = link.next_ = nullptr;
    --size_;
  }
  T* oldest() { return size_ == 0 ? nullptr : static_cast<T*>(head_.next_); }
  // Returns the oldest member with `fits(member)` among the first `looks` members.
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
