// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/failure.h"

#include <iterator>

namespace tidegate::l7 {
namespace {

constexpr FailureInfo kTable[] = {
    {"none", 200, Blame::nobody, Retry::never, Sharers::nobody_waits, ""},
#define TIDEGATE_FAILURE(name, status, blame, retry, sharers, sentence) \
  {#name, status, Blame::blame, Retry::retry, Sharers::sharers, sentence},
#include "l7/exchange/failure.def"
#undef TIDEGATE_FAILURE
};
static_assert(std::size(kTable) == kFailures);

}  // namespace

const FailureInfo& info(Failure failure) { return kTable[static_cast<size_t>(failure)]; }

}  // namespace tidegate::l7
