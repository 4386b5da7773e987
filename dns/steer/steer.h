// SPDX-License-Identifier: Apache-2.0
// Steering: which addresses a steered name is answered with, decided from the order of sites, health and the draw of
// draw.h.
// Pure: no clock, no socket, no allocation.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "conf/snapshot.h"
#include "core/hash.h"
#include "core/ip.h"
#include "dns/steer/draw.h"

namespace tidegate::dns {

constexpr size_t kMaxAnswers = 32;  // addresses in one steered answer, whatever the configuration says

// What health says of each address that a steer may give, as one byte: made anew at each change of live state, shared
// by all steers.
namespace health {
constexpr uint8_t kUsable = 1;    // up: may be answered
constexpr uint8_t kFailOpen = 2;  // not under an override: may be answered when nothing is usable
}  // namespace health

// One address that may be answered.
struct Candidate {
  std::array<uint8_t, 16> address{};  // IPv4 uses the first four
  uint32_t health = 0;                // index into Health
  uint32_t site = kNone;
  uint32_t target = 0;  // index into Steer::targets
  // Under `weighted`, within its target: the backend's, of a pool; 0 for a VIP. Otherwise its share of its class: the
  // target's weight, divided among its addresses by their backends' weights.
  uint32_t weight = 0;
};
static_assert(sizeof(Candidate) == 32);  // a search by halves divides by it

// A port at which our own TLS listeners serve a name.
struct HttpsService {
  uint16_t port = 443;
  bool http2 = true;  // all of them speak it
};

// A steer made ready. Candidates are sorted by site under `nearest` (without a site last), else by target.
struct CompiledSteer {
  uint32_t model_index = 0;
  SteerPolicy policy = SteerPolicy::nearest;
  AllDown all_down = AllDown::open;
  uint32_t ttl_s = 0;
  uint32_t max_answers = 1;
  std::vector<uint32_t> target_weights;
  std::vector<Candidate> v4, v6;
  std::vector<HttpsService> https;  // what an answer of type HTTPS tells; empty: it has none

  // Whether no candidate of the family is nearer to anybody than another: then the client's place does not matter.
  bool one_place_v4 = false, one_place_v6 = false;

  bool depends_on_place(IpAddress::Family family) const {
    return policy == SteerPolicy::nearest && !(family == IpAddress::Family::v4 ? one_place_v4 : one_place_v6);
  }
  const std::vector<Candidate>& of(IpAddress::Family family) const { return family == IpAddress::Family::v4 ? v4 : v6; }
};

using Health = std::vector<uint8_t>;

// Where each address's byte stands in Health: first every VIP, then every backend of every pool, in the model's order.
class HealthLayout {
 public:
  explicit HealthLayout(const Model& model);
  uint32_t of_vip(uint32_t vip) const { return vip; }
  uint32_t of_backend(uint32_t pool, uint32_t backend) const { return first_of_pool_[pool] + backend; }

 private:
  std::vector<uint32_t> first_of_pool_;
};

Health compile_health(const Snapshot& snapshot);
CompiledSteer compile_steer(const Model& model, uint32_t steer_index, const HealthLayout& layout);
// Every site to which some steer, or the list of HTTPDNS's own addresses, may send a client.
std::vector<uint32_t> steered_sites(const Model& model);

struct Choice {
  std::array<const Candidate*, kMaxAnswers> picks;  // `count` of them; they borrow the steer
  uint32_t count = 0;
  bool failed_open = false;  // nothing was usable and all_down is open
  bool refused = false;      // nothing may be answered although there are addresses
};

// `site_order` is GeoMap::order() of the client, read where the steer depends_on_place(). No picks and not refused: the
// steer has no address of that family.
Choice choose(const CompiledSteer& steer, IpAddress::Family family, std::span<const uint32_t> site_order,
              const Health& health, const DrawKey& key);

}  // namespace tidegate::dns
