// SPDX-License-Identifier: Apache-2.0
// FaultList: where the rooms' checks put what they find, and Pointer, the way to a value.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conf/document_node.h"
#include "conf/fault.h"

namespace tidegate {

// A step on the way from the root; a chain on the stack, written out (RFC 6901) only when a fault needs it.
struct Pointer {
  const Pointer* parent = nullptr;  // null: this is the root
  std::string_view key;             // of a map, when `in_map`
  size_t index = 0;                 // of a list otherwise
  bool in_map = false;

  Pointer at(std::string_view child) const { return {this, child, 0, true}; }
  Pointer at(size_t item) const { return {this, {}, item, false}; }
  std::string to_string() const;
};

// What is wrong, without its place. See Fault for the members.
struct Complaint {
  std::string code, detail, expected, hint;
};

class FaultList {
 public:
  // Past this many a last "too_many" fault says so, and the rest is dropped: nobody reads on, and memory stays bounded.
  static constexpr size_t kMax = 1'000;

  FaultList(std::vector<Fault>& faults, std::string file) : faults_(faults), file_(std::move(file)) {}

  void at_value(const DocumentNode& node, const Pointer& pointer, Complaint complaint);
  void at_key(const DocumentNode& node, const Pointer& pointer, Complaint complaint);
  void at(uint32_t line, uint32_t column, std::string pointer, Complaint complaint);

  // The document's text; borrowed. With it, columns are told in characters. Nodes count
  // bytes.
  void set_text(std::string_view text);
  uint32_t shown_column(uint32_t line, uint32_t column) const;

  // The value there is wrong because of a fault that stands elsewhere: it is not told again.
  void mark(std::string pointer) { marked_.push_back(std::move(pointer)); }
  const std::vector<std::string>& marked() const { return marked_; }

  bool full() const { return faults_.size() > kMax; }
  const std::vector<Fault>& faults() const { return faults_; }

 private:
  std::vector<Fault>& faults_;
  std::vector<std::string> marked_;  // pointers
  std::string_view text_;
  mutable std::vector<size_t> line_starts_;  // of text_, once somebody asked
  std::string file_;
};

}  // namespace tidegate
