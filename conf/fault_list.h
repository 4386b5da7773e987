// SPDX-License-Identifier: Apache-2.0
// FaultList: collects the faults that the checks of all rooms find. Pointer: the path to a value.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conf/document_node.h"
#include "conf/fault.h"

namespace tidegate {

// A step on the path from the root. The steps are a chain on the stack; the path is written out (RFC 6901) only if a
// fault needs it.
struct Pointer {
  const Pointer* parent = nullptr;  // null: this is the root
  std::string_view key;             // key of a map, if `in_map`
  size_t index = 0;                 // otherwise the index of a list
  bool in_map = false;

  Pointer at(std::string_view child) const { return {this, child, 0, true}; }
  Pointer at(size_t item) const { return {this, {}, item, false}; }
  std::string to_string() const;
};

// A fault without its place. Fault describes the members.
struct Complaint {
  std::string code, detail, expected, hint;
};

class FaultList {
 public:
  static constexpr size_t kMax = kMaxFaults;

  FaultList(std::vector<Fault>& faults, std::string file) : faults_(faults), file_(std::move(file)) {}

  void at_value(const DocumentNode& node, const Pointer& pointer, Complaint complaint);
  // Reports a fault at the byte `offset` of a scalar's text. If the document writes the text differently there
  // (escapes, a folded line), reports it at the beginning of the scalar.
  void within_value(const DocumentNode& node, const std::string& pointer, size_t offset, Complaint complaint);
  void at_key(const DocumentNode& node, const Pointer& pointer, Complaint complaint);
  void at(uint32_t line, uint32_t column, std::string pointer, Complaint complaint);

  // The document's text, borrowed. With it, columns count characters. The nodes' columns count bytes.
  void set_text(std::string_view text);
  uint32_t shown_column(uint32_t line, uint32_t column) const;

  // Marks a value that is wrong only because of a fault at another place. It is not reported again.
  void mark(std::string pointer) { marked_.push_back(std::move(pointer)); }
  const std::vector<std::string>& marked() const { return marked_; }

  bool full() const { return faults_.size() > kMax; }
  const std::vector<Fault>& faults() const { return faults_; }

 private:
  std::string_view rest_of_line(uint32_t line, uint32_t column) const;
  void find_lines() const;

  std::vector<Fault>& faults_;
  std::vector<std::string> marked_;  // JSON pointers
  std::string_view text_;
  mutable std::vector<size_t> line_starts_;  // of text_, filled on first use
  std::string file_;
};

}  // namespace tidegate
