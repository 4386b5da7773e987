// SPDX-License-Identifier: Apache-2.0
// Any text as a zone file that may include itself under any name: either it is refused with a sentence, or the zone
// answers.
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conf/zone_includes.h"
#include "dns/zone/zone.h"

using namespace tidegate::dns;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  const std::string text(reinterpret_cast<const char*>(data), bytes);
  std::string refused;
  const auto whole = tidegate::put_includes_in(
      "fuzz.zone", text, [&](const std::string&, std::string&) { return std::make_shared<const std::string>(text); },
      refused);
  if (whole ? tidegate::has_includes(*whole) : refused.empty()) std::abort();
  std::vector<tidegate::Fault> faults;
  const auto zone = Zone::parse("example.test.", "fuzz.zone", whole ? *whole : text, faults);
  if ((zone == nullptr) == faults.empty() || faults.size() > tidegate::kMaxFaults + 1) std::abort();
  for (const tidegate::Fault& fault : faults) {
    const bool placed = fault.line > 0 && fault.column > 0 && fault.line_text && !fault.file.empty();
    if (fault.detail.empty() || (!placed && fault.code != "too_many")) std::abort();
  }
  (void)tidegate::render_faults(faults, "", false);
  if (!zone) return 0;
  const auto apex = zone->apex().wire();
  const NodeView node = zone->find(name_hash(apex), apex);
  RrsetView soa;
  if (!node || !node.find(rrtype::kSoa, soa) || soa.records != 1 || zone->negative_soa().records != 1) std::abort();
  return 0;
}
