// SPDX-License-Identifier: Apache-2.0
#include "conf/fault_list.h"

#include <algorithm>

#include "conf/text.h"

namespace tidegate {

std::string Pointer::to_string() const {
  if (parent == nullptr) return {};
  return parent->to_string() + "/" + (in_map ? escape_pointer_step(key) : std::to_string(index));
}

void FaultList::at_value(const DocumentNode& node, const Pointer& pointer, Complaint complaint) {
  at(node.line, node.column, full() ? std::string() : pointer.to_string(), std::move(complaint));
}

void FaultList::within_value(const DocumentNode& node, const std::string& pointer, size_t offset, Complaint complaint) {
  const uint32_t begin = node.column + (node.quoted ? 1 : 0);
  const bool as_written = rest_of_line(node.line, begin).starts_with(std::string_view(node.text).substr(0, offset));
  const uint32_t column = as_written && node.line > 0 ? begin + static_cast<uint32_t>(offset) : node.column;
  at(node.line, column, pointer, std::move(complaint));
}

void FaultList::at_key(const DocumentNode& node, const Pointer& pointer, Complaint complaint) {
  at(node.key_line, node.key_column, full() ? std::string() : pointer.to_string(), std::move(complaint));
}

void FaultList::set_text(std::string_view text) {
  text_ = without_byte_order_mark(text);
  line_starts_.clear();
}

void FaultList::find_lines() const {
  if (!line_starts_.empty()) return;
  line_starts_.push_back(0);
  for (size_t i = 0; i < text_.size(); ++i) {
    if (text_[i] == '\n') line_starts_.push_back(i + 1);
  }
}

// From the byte in that column to the line's end. Empty if there is no such place.
std::string_view FaultList::rest_of_line(uint32_t line, uint32_t column) const {
  if (text_.empty() || line == 0 || column == 0) return {};
  find_lines();
  if (line > line_starts_.size()) return {};
  const size_t at = line_starts_[line - 1] + column - 1;
  return at >= text_.size() ? std::string_view() : text_.substr(at, text_.find('\n', at) - at);
}

uint32_t FaultList::shown_column(uint32_t line, uint32_t column) const {
  if (text_.empty() || line == 0 || column == 0) return column;
  find_lines();
  if (line > line_starts_.size()) return column;
  return tidegate::shown_column(text_.substr(line_starts_[line - 1]), column);
}

void FaultList::at(uint32_t line, uint32_t column, std::string pointer, Complaint complaint) {
  if (full()) return;
  add_fault(faults_, {std::move(complaint.code), std::move(pointer), file_, line, shown_column(line, column),
                      std::move(complaint.detail), std::move(complaint.expected), std::move(complaint.hint)});
}

}  // namespace tidegate
