// SPDX-License-Identifier: Apache-2.0
// ShedController: what share of its clients a loaded site sends on. Pure: no clock, no socket.
//
// A change of the share is felt late, because resolvers keep an answer for its TTL. A controller that answers the load
// of the moment therefore swings: it sends too many on, then calls too many back. This one moves the logarithm of the
// share that stays, by the logarithm of the wanted load over the load, and so slowly that the delay does not matter:
// the whole correction would take kCalm times the mean delay. In logarithms the load follows what stays one to one,
// however much too much the demand is. So nothing needs to be tuned.
//
// Between `above` and kBand below it nothing changes, so that a site whose load trembles there writes nothing.
#pragma once

#include <cstdint>

namespace tidegate {

class ShedController {
 public:
  static constexpr uint32_t kMostPermille = 950;  // the rest of the clients show when the site is free again
  static constexpr double kCalm = 4;              // a loop of an integrator and one lag does not swing from here on
  static constexpr double kBand = 10;             // in per cent of load

  // `permille`: the share in force.
  explicit ShedController(uint32_t permille = 0);

  // The site's load in per cent was measured over the last `period_s`; `ttl_s` is how long resolvers keep an answer.
  void observe(double load, double above, double period_s, double ttl_s);

  // What to put in force. It follows the exact share in steps of kStepPermille, so that writes are few.
  static constexpr uint32_t kStepPermille = 10;
  uint32_t permille() const { return published_; }

 private:
  double log_kept_ = 0;  // of the share that stays; 0: everybody
  uint32_t published_ = 0;
};

}  // namespace tidegate
