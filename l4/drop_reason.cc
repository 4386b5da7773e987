// SPDX-License-Identifier: Apache-2.0
#include "l4/drop_reason.h"

#include <array>

namespace tidegate::l4 {
namespace {

struct DropReasonRow {
  std::string_view name, sentence;
};

constexpr std::array<DropReasonRow, kDropReasons> kDropReasonTable = {{{"none", "not dropped"},
#define TIDEGATE_L4_ROW(name, sentence) {#name, sentence},
                                                                       TIDEGATE_L4_DROP_REASONS(TIDEGATE_L4_ROW)
#undef TIDEGATE_L4_ROW
}};

}  // namespace

std::string_view name(DropReason reason) { return kDropReasonTable[static_cast<size_t>(reason)].name; }
std::string_view sentence(DropReason reason) { return kDropReasonTable[static_cast<size_t>(reason)].sentence; }

}  // namespace tidegate::l4
