// SPDX-License-Identifier: Apache-2.0
#include "control/cli/memory_rank.h"

#include <algorithm>
#include <fstream>

namespace tidegate::cli {
namespace {

constexpr const char* kPath = "/proc/self/oom_score_adj";
constexpr int kLast = -500;  // as OOMScoreAdjust= of the units; the kernel takes -1000 (never) to 1000

void write(int rank) { std::ofstream(kPath) << rank << std::flush; }

}  // namespace

MemoryRank::MemoryRank() { std::ifstream(kPath) >> usual_; }

void MemoryRank::raise() const { write(std::min(usual_, kLast)); }

void MemoryRank::settle(const std::string& plane) const {
  if (plane != "dns" && plane != "l4") write(usual_);
}

}  // namespace tidegate::cli
