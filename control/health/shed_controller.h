// SPDX-License-Identifier: Apache-2.0
// ShedController: computes what share of its clients a loaded site sends to other sites. Pure: no clock, no socket.
//
// A change of the share takes effect late, because resolvers keep an answer for its TTL. So a controller that reacts to
// the present load would oscillate: it sends too many clients away, then calls too many back. This controller changes
// the logarithm of the share that stays by log(wanted load / load). It does so slowly enough that the delay does not
// matter: the whole correction would take kCalm times the mean delay. In logarithms, the load follows the share that
// stays one to one, for any demand. So nothing needs to be tuned.
//
// Between `above` and kBand below it nothing changes, so that small changes of the load there cause no writes.
#pragma once

#include <cstdint>

namespace tidegate {

class ShedController {
 public:
  static constexpr uint32_t kMostPermille = 950;  // the remaining clients show when the site is free again
  // from this value on, a loop of an integrator and one lag does not oscillate
  static constexpr double kCalm = 4;
  static constexpr double kBand = 10;  // in per cent of load

  // `permille`: the share in force.
  explicit ShedController(uint32_t permille = 0);

  // The site's load in per cent, measured over the last `period_s`. `ttl_s` is how long resolvers keep an answer.
  void observe(double load, double above, double period_s, double ttl_s);

  // The share to put in force. It follows the exact share in steps of kStepPermille, so that writes are rare.
  static constexpr uint32_t kStepPermille = 10;
  uint32_t permille() const { return published_; }

 private:
  double log_kept_ = 0;  // log of the share that stays; 0: all clients stay
  uint32_t published_ = 0;
};

}  // namespace tidegate
