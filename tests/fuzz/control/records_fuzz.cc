// SPDX-License-Identifier: Apache-2.0
// The records API: "NAME\nTYPE\nBODY" on a zone with an included file. Either every fault is reported, or the requested
// set is there, and every other record is unchanged.
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "control/api/zone_records.h"
#include "dns/plan/records.h"
#include "dns/zone/master_text.h"

namespace {

using namespace tidegate;

constexpr std::string_view kZone =
    "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n IN NS ns\nns IN A 192.0.2.53\n   120 TXT ( \"a\"\n \"b\" ) "
    "; c\n"
    "$BEGIN-INCLUDED \"part\" sub\n TXT \"of ns\"\nwww 30 IN A 192.0.2.1\n$END-INCLUDED\n  AAAA 2001:db8::1\nwww A "
    "192.0.2.2";

std::string take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string line(text.substr(0, end));
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

// The other records, as text.
std::multiset<std::string> others(const dns::Name& apex, std::string_view text, const dns::RecordChange& change) {
  std::multiset<std::string> found;
  const std::string name = dns::owner_to_text(change.name.wire());
  for (const dns::RecordSet& set : dns::list_records(apex, "z", text, {}, 0, SIZE_MAX).sets) {
    if ((set.name == name && dns::record_type(set.type) == change.type) || set.type == "SOA") continue;
    for (const std::string& data : set.data) found.insert(set.name + " " + std::to_string(set.ttl_s) + set.type + data);
  }
  return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const dns::Name apex = *dns::Name::from_text("example.test.");
  const auto name = dns::record_name(apex, take_line(rest));
  const uint16_t type = dns::record_type(take_line(rest));
  dns::RecordChange change;
  std::vector<Fault> faults;
  read_record_body(rest, change, faults);
  if (!faults.empty() || !name || type == 0) return 0;
  change.name = *name;
  change.type = type;
  const dns::EditedZone edited = dns::edit_records(apex, "z", kZone, change);
  for (const Fault& fault : edited.faults) {
    if (fault.detail.empty() || fault.code.empty()) std::abort();
    if (fault.code == "cannot_edit") std::abort();  // this file can be edited
  }
  if (!edited.faults.empty()) return 0;
  if (others(apex, edited.text, change) != others(apex, kZone, change)) std::abort();
  const auto sets = dns::list_records(apex, "z", edited.text, {change.name, change.type}, 0, 2).sets;
  if (sets.size() != 1 || sets[0].data.size() > change.data.size()) std::abort();
  if (change.ttl_s && sets[0].ttl_s != *change.ttl_s) std::abort();
  // A listed set can be written again, which changes nothing.
  change.data = sets[0].data;
  if (dns::edit_records(apex, "z", edited.text, change).changed) std::abort();
  return 0;
}
