// SPDX-License-Identifier: Apache-2.0
// Elements: a list of the Model whose elements are shared between versions. A copy of the list copies pointers; the
// elements themselves are common until one of the two lists changes its own. So a version in which one of 10,000 routes
// changed has one route of its own.
//
// It reads like a std::vector, but its elements are not contiguous in memory. Access through a list that is not const
// first copies an element that is shared. So read through a const list. While somebody writes through a reference to an
// element, the list must not be copied (this holds for a vector too).
//
// Threads: lists that share elements may be used by different threads, each as a std::vector may.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

namespace tidegate {

template <class T>
class Elements {
  // The position is an index, because an element has no neighbour in memory.
  template <class List, class Item>
  class Iterator {
   public:
    using iterator_category = std::random_access_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = Item*;
    using reference = Item&;

    Iterator() = default;
    Iterator(List* list, size_t index) : list_(list), index_(index) {}
    reference operator*() const { return (*list_)[index_]; }
    pointer operator->() const { return &(*list_)[index_]; }
    reference operator[](difference_type by) const { return *(*this + by); }
    Iterator& operator+=(difference_type by) {
      index_ = static_cast<size_t>(static_cast<difference_type>(index_) + by);
      return *this;
    }
    Iterator& operator-=(difference_type by) { return *this += -by; }
    Iterator& operator++() { return *this += 1; }
    Iterator& operator--() { return *this -= 1; }
    Iterator operator++(int) { return std::exchange(*this, *this + 1); }
    Iterator operator--(int) { return std::exchange(*this, *this - 1); }
    friend Iterator operator+(Iterator at, difference_type by) { return at += by; }
    friend Iterator operator+(difference_type by, Iterator at) { return at += by; }
    friend Iterator operator-(Iterator at, difference_type by) { return at -= by; }
    friend difference_type operator-(Iterator a, Iterator b) {
      return static_cast<difference_type>(a.index_) - static_cast<difference_type>(b.index_);
    }
    friend bool operator==(Iterator a, Iterator b) { return a.index_ == b.index_; }
    friend auto operator<=>(Iterator a, Iterator b) { return a.index_ <=> b.index_; }

   private:
    List* list_ = nullptr;
    size_t index_ = 0;
  };

 public:
  using value_type = T;
  using iterator = Iterator<Elements, T>;
  using const_iterator = Iterator<const Elements, const T>;

  Elements() = default;
  Elements(std::initializer_list<T> elements) {
    for (const T& element : elements) push_back(element);
  }
  Elements& operator=(std::initializer_list<T> elements) { return *this = Elements(elements); }

  size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  const T& operator[](size_t index) const { return *items_[index]; }
  const T& at(size_t index) const { return *items_.at(index); }
  const T& front() const { return *items_.front(); }
  const T& back() const { return *items_.back(); }
  const_iterator begin() const { return {this, 0}; }
  const_iterator end() const { return {this, size()}; }
  // True if both lists have the same object at this index. Then the element is equal in both.
  bool shares(size_t index, const Elements& other) const {
    return index < size() && index < other.size() && items_[index] == other.items_[index];
  }

  T& operator[](size_t index) { return own(items_[index]); }
  T& at(size_t index) { return own(items_.at(index)); }
  T& front() { return own(items_.front()); }
  T& back() { return own(items_.back()); }
  iterator begin() { return {this, 0}; }
  iterator end() { return {this, size()}; }
  // Replaces the element at this index by a new one that has only defaults.
  T& renew(size_t index) { return *(items_[index] = std::make_shared<T>()); }

  void reserve(size_t count) { items_.reserve(count); }
  void clear() { items_.clear(); }
  void resize(size_t count) {
    items_.resize(std::min(count, size()));
    items_.reserve(count);
    while (size() < count) emplace_back();
  }
  void push_back(T element) { items_.push_back(std::make_shared<T>(std::move(element))); }
  T& emplace_back() { return *items_.emplace_back(std::make_shared<T>()); }
  void pop_back() { items_.pop_back(); }
  void erase(iterator at) { items_.erase(items_.begin() + (at - begin())); }

 private:
  using Item = std::shared_ptr<T>;

  static T& own(Item& item) {
    if (item.use_count() != 1) return *(item = std::make_shared<T>(*item));
    // Another thread may have released the element just now. Its reads must come before the writes of this thread.
    std::atomic_thread_fence(std::memory_order_acquire);
    return *item;
  }

  std::vector<Item> items_;
};

}  // namespace tidegate
