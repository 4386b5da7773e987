// SPDX-License-Identifier: Apache-2.0
#include "control/health/shed_controller.h"

#include <algorithm>
#include <cmath>

#include "core/assert.h"

namespace tidegate {
namespace {

// A load that is more than this many times too high or too low counts as this many times.
constexpr double kMostRatio = 4;

}  // namespace

ShedController::ShedController(uint32_t permille)
    : log_kept_(std::log(1 - std::min(permille, kMostPermille) / 1'000.0)),
      published_(std::min(permille, kMostPermille)) {}

void ShedController::observe(double load, double above, double period_s, double ttl_s) {
  TIDEGATE_ASSERT(above > 0 && period_s > 0 && ttl_s >= 0, "a site has a bound, and is looked at from time to time");
  const double below = std::max(above - kBand, above / 2);
  const double wanted = std::clamp(load, below, above);
  const double ratio = std::clamp(wanted / std::max(load, 0.01), 1 / kMostRatio, kMostRatio);
  const double delay_s = ttl_s / 2 + period_s;
  log_kept_ += std::log(ratio) * std::min(1.0, period_s / (kCalm * delay_s));
  log_kept_ = std::clamp(log_kept_, std::log(1 - kMostPermille / 1'000.0), 0.0);

  const double exact = (1 - std::exp(log_kept_)) * 1'000;
  const double moved = std::abs(exact - published_);
  const bool ends = exact < kStepPermille / 2.0 && published_ != 0;
  if (moved >= kStepPermille || ends) published_ = ends ? 0 : static_cast<uint32_t>(std::lround(exact));
}

}  // namespace tidegate
