// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/mirror.h"

#include "conf/field_builders.h"
#include "conf/policy/kind.h"

namespace tidegate {
namespace {

using namespace fields;

const Section& mirror_section() {
  static const Section section{
      "mirror",
      {
          required(reference("pool", &MirrorPolicy::pool, "pools",
                             "It gets the copies. Its answers are thrown away; statuses that differ are counted.")),
          number("percent", &MirrorPolicy::percent, 0, 100, "Of the requests that reach a backend."),
          integer("most", &MirrorPolicy::most, {1, 100'000},
                  "Copies that may be under way at one time. Beyond it, requests are not copied."),
          duration("timeout", &MirrorPolicy::timeout_ms, {1, 10 * kMinute}, "A copy ends after so long."),
      }};
  return section;
}

void check_mirror(Checks&, size_t) {}

}  // namespace

PolicyKind mirror_policy_kind() {
  PolicyKind kind = policy_kind<MirrorPolicy>(
      "mirror", "Copies of requests go to another pool too; nobody gets its answers.", mirror_section(), check_mirror);
  kind.pools_of = [](const Policy& policy) { return std::vector<uint32_t>{policy.part<MirrorPolicy>("mirror")->pool}; };
  return kind;
}

}  // namespace tidegate
