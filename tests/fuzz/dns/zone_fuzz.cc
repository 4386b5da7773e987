// Any text as a zone file: refused with a sentence, or a zone whose every name can be asked for.
#include <cstdlib>
#include <string_view>

#include "dns/zone.h"

using namespace tidegate::dns;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  const auto zone = Zone::parse("example.test.", "fuzz.zone", {reinterpret_cast<const char*>(data), bytes});
  if (!zone) {
    if (zone.error().message.empty()) std::abort();
    return 0;
  }
  const auto apex = (*zone)->apex().wire();
  const NodeView node = (*zone)->find(name_hash(apex), apex);
  RrsetView soa;
  if (!node || !node.find(rrtype::kSoa, soa) || soa.records != 1 || (*zone)->negative_soa().records != 1) std::abort();
  return 0;
}
