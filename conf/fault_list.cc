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

void FaultList::at_key(const DocumentNode& node, const Pointer& pointer, Complaint complaint) {
  at(node.key_line, node.key_column, full() ? std::string() : pointer.to_string(), std::move(complaint));
}

void FaultList::set_text(std::string_view text) {
  text_ = without_byte_order_mark(text);
  line_starts_.clear();
}

uint32_t FaultList::shown_column(uint32_t line, uint32_t column) const {
  if (text_.empty() || line == 0 || column == 0) return column;
  if (line_starts_.empty()) {
    line_starts_.push_back(0);
    for (size_t i = 0; i < text_.size(); ++i) {
      if (text_[i] == '\n') line_starts_.push_back(i + 1);
    }
  }
  if (line > line_starts_.size()) return column;
  return tidegate::shown_column(text_.substr(line_starts_[line - 1]), column);
}

void FaultList::at(uint32_t line, uint32_t column, std::string pointer, Complaint complaint) {
  if (full()) return;
  add_fault(faults_, {std::move(complaint.code), std::move(pointer), file_, line, shown_column(line, column),
                      std::move(complaint.detail), std::move(complaint.expected), std::move(complaint.hint)});
}

}  // namespace tidegate
