// SPDX-License-Identifier: Apache-2.0
// Any text as XML, and as JSON that becomes XML: the result is within its bound, can be read again, and means the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "l7/policy/json_scan.h"
#include "l7/policy/xml_json.h"

namespace {

using namespace tidegate::l7;
using policy::XmlFault;

constexpr size_t kMost = 8'192;

void demand(bool holds) {
  if (!holds) std::abort();
}

// JSON that was made from XML must come back unchanged through XML.
void check_way_back(const std::string& json) {
  if (!policy::scan_json(json)) return;  // nested more deeply than that accepts
  Arena arena;
  std::string xml;
  if (policy::json_to_xml(json, "root", 8 * kMost, xml, arena) != XmlFault::none) std::abort();
  std::string again;
  demand(policy::xml_to_json(xml, 8 * kMost, again) == XmlFault::none);
  demand(again == json);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string json;
  if (policy::xml_to_json(text, kMost, json) == XmlFault::none) {
    demand(json.size() <= kMost);
    check_way_back(json);
  }
  Arena arena;
  std::string xml;
  if (policy::json_to_xml(text, "root", kMost, xml, arena) == XmlFault::none) {
    demand(xml.size() <= kMost);
    std::string read;
    const XmlFault fault = policy::xml_to_json(xml, kMost, read);
    demand(fault == XmlFault::none || fault == XmlFault::too_large || fault == XmlFault::malformed);
  }
  return 0;
}
