#include "conf/fault_list.h"

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

void FaultList::at(uint32_t line, uint32_t column, std::string pointer, Complaint complaint) {
  if (full()) return;
  if (faults_.size() == kMax) {
    // No place: it sorts behind all the others.
    faults_.push_back({"too_many", {}, file_, 0, 0, "there are more faults than these", {}, "mend these first"});
    return;
  }
  faults_.push_back({std::move(complaint.code), std::move(pointer), file_, line, column, std::move(complaint.detail),
                     std::move(complaint.expected), std::move(complaint.hint)});
}

}  // namespace tidegate
