// SPDX-License-Identifier: Apache-2.0
#include "dns/plan/authority.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <unordered_map>

#include "conf/model/steer.h"
#include "core/sha256_stream.h"
#include "dns/limits.h"
#include "dns/plan/lookup.h"

namespace tidegate::dns {
namespace {

// Builds one Authority and collects its faults.
class Planner {
 public:
  Planner(std::shared_ptr<const Model> model, const Authority* previous) : previous_(previous) {
    authority_->model = std::move(model);
  }

  PlannedAuthority plan() {
    load_zones();
    lay_steers();
    if (faults_.empty()) compile_steers();
    if (!faults_.empty()) return {nullptr, std::move(faults_)};
    authority_->digest = digest();
    return {std::move(authority_), {}};
  }

 private:
  void load_zones() {
    std::unordered_map<std::string_view, const ServedZone*> known;  // by name
    if (previous_ != nullptr) {
      for (const ServedZone& zone : previous_->zones) known.emplace(zone.name, &zone);
    }
    const Elements<tidegate::Zone>& configured = authority_->model->zones;
    authority_->zones.reserve(configured.size());
    for (size_t z = 0; z < configured.size() && faults_.size() <= kMaxFaults; ++z) {
      ServedZone served;
      served.name = configured[z].name;
      served.hash = configured[z].file.hash;
      const auto old = known.find(served.name);
      const bool same = old != known.end() && old->second->hash == served.hash && !served.hash.empty();
      served.zone = same ? old->second->zone : parse(z, configured[z]);
      if (served.zone) authority_->zones.push_back(std::move(served));
    }
    authority_->index_apexes();
  }

  std::shared_ptr<const Zone> parse(size_t z, const tidegate::Zone& configured) {
    const std::string pointer = fmt::format("/zones/{}/file", z);
    if (!configured.file.bytes) {
      refuse("bad_zone", pointer, fmt::format("zone {}: its file was not loaded", configured.name));
      return nullptr;
    }
    const size_t before = faults_.size();
    auto zone = Zone::parse(configured.name, configured.file.name, *configured.file.bytes, faults_);
    for (size_t f = before; f < faults_.size(); ++f) faults_[f].pointer = pointer;
    return zone;
  }

  void lay_steers() {
    for (uint32_t i = 0; i < authority_->model->steers.size() && faults_.size() <= kMaxFaults; ++i) lay_steer(i);
  }

  // A steer needs one of our own names. The zone must not delegate it or redirect it.
  void lay_steer(uint32_t index) {
    const Steer& steer = authority_->model->steers[index];
    const auto refuse_name = [&](const std::string& why) {
      refuse("bad_steer", fmt::format("/steers/{}/name", index), fmt::format("steer {}: {}", steer.name, why));
    };
    const auto name = Name::from_text(steer.name);
    if (!name) return refuse_name("the name is malformed");
    const ServedZone* found_zone = authority_->zone_for(*name);
    if (found_zone == nullptr) {
      // The zone of the name may have been refused. Then the name itself is not at fault.
      if (authority_->zones.size() == authority_->model->zones.size()) refuse_name("no zone holds the name");
      return;
    }
    ServedZone& served = authority_->zones[static_cast<size_t>(found_zone - authority_->zones.data())];
    const Found found = find_name(served, *name, rrtype::kA);
    if (found.kind == Found::Kind::referral || found.kind == Found::Kind::dname) {
      return refuse_name(
          fmt::format("the zone {} gives the name away at {}", served.name, name_to_text(found.node.name())));
    }
    if (found.kind == Found::Kind::exact && found.node && found.node.has_cname()) {
      return refuse_name(fmt::format("the name is a CNAME in the zone {}", served.name));
    }
    served.steer_names.add(*name, served.zone->apex().labels(), index);
  }

  void compile_steers() {
    const Model& model = *authority_->model;
    const HealthLayout layout(model);
    authority_->aliases = alias_names(model);
    authority_->rankings = RankingIndex(steered_sites(model));
    authority_->steers.reserve(model.steers.size());
    for (uint32_t i = 0; i < model.steers.size(); ++i)
      authority_->steers.push_back(compile_steer(model, i, layout, authority_->aliases, authority_->rankings));
    if (authority_->rankings.overflowed())
      refuse("too_many", "/steers", fmt::format("steers have more than {} different maps", kMaxRankings));
  }

  void refuse(std::string code, std::string pointer, std::string detail) {
    add_fault(faults_, {std::move(code), std::move(pointer), {}, 0, 0, std::move(detail), {}, {}});
  }

  std::string digest() const;

  const Authority* previous_;
  std::shared_ptr<Authority> authority_ = std::make_shared<Authority>();
  std::vector<Fault> faults_;
};

// The content of a digest. Numbers take as many bytes as they need (LEB128), and texts have their length before them.
// So different contents never give the same bytes.
class DigestText {
 public:
  void add_text(std::string_view text) {
    add(text.size());
    digest_.add(text);
  }
  template <class... Numbers>
  void add(Numbers... numbers) {
    std::array<char, kLongest * sizeof...(numbers)> bytes;
    size_t length = 0;
    for (uint64_t number : {static_cast<uint64_t>(numbers)...}) {
      for (; number >= 0x80; number >>= 7) bytes[length++] = static_cast<char>(number | 0x80);
      bytes[length++] = static_cast<char>(number);
    }
    digest_.add({bytes.data(), length});
  }
  std::string digest() { return digest_.hex(); }

 private:
  static constexpr size_t kLongest = 10;  // bytes of a 64-bit number, with seven bits each
  Sha256Stream digest_;
};

// Over the configuration, not over addresses in memory.
std::string Planner::digest() const {
  const Authority& authority = *authority_;
  DigestText text;
  for (const ServedZone& zone : authority.zones) {
    text.add_text(zone.name);
    text.add_text(zone.hash);
    text.add(zone.zone->names(), zone.zone->records());
  }
  for (const CompiledSteer& steer : authority.steers) {
    text.add_text(authority.model->steers[steer.model_index].name);
    text.add(steer.policy, steer.ttl_s, steer.max_answers, steer.all_down, steer.client_prefix_v4,
             steer.client_prefix_v6, steer.https.size());
    for (const HttpsService& service : steer.https) text.add(service.port, service.http2);
    for (const auto* family : {&steer.v4, &steer.v6}) {
      text.add(family->candidates.size(), family->ranking);
      for (const Candidate& c : family->candidates) {
        text.add_text(std::string_view(reinterpret_cast<const char*>(c.address.data()), c.address.size()));
        text.add(c.site, c.target, c.weight, steer.target_weights[c.target], c.identity, c.led_to);
      }
    }
  }
  for (const RankingIndex::Question& each : authority.rankings.questions()) text.add_text(each.key);
  return text.digest();
}

}  // namespace

PlannedAuthority plan_authority(std::shared_ptr<const Model> model, const Authority* previous) {
  return Planner(std::move(model), previous).plan();
}

void Authority::index_apexes() {
  apex_slots_.assign(std::bit_ceil(zones.size() * 2 + 1), kNone);
  zone_by_labels_.fill(kNone);
  const size_t mask = apex_slots_.size() - 1;
  for (uint32_t z = 0; z < zones.size(); ++z) {
    const Name& apex = zones[z].zone->apex();
    uint32_t& by_labels = zone_by_labels_[apex.labels()];
    by_labels = by_labels == kNone ? z : kMany;
    size_t i = name_hash(apex.wire()) & mask;
    while (apex_slots_[i] != kNone) i = (i + 1) & mask;
    apex_slots_[i] = z;
  }
}

bool Authority::has_apex(uint32_t zone, std::span<const uint8_t> lower_name) const {
  const auto apex = zones[zone].zone->apex().wire();
  return apex.size() == lower_name.size() && std::memcmp(apex.data(), lower_name.data(), apex.size()) == 0;
}

const ServedZone* Authority::zone_for(const Name& name, size_t max_labels) const {
  const size_t mask = apex_slots_.size() - 1;
  for (size_t labels = std::min(name.labels(), max_labels) + 1; labels-- > 0;) {
    const uint32_t only = zone_by_labels_[labels];
    if (only == kNone) continue;
    const auto suffix = name.suffix(labels);
    if (only != kMany) {
      if (has_apex(only, suffix)) return &zones[only];
      continue;
    }
    for (size_t i = name_hash(suffix) & mask; apex_slots_[i] != kNone; i = (i + 1) & mask) {
      if (has_apex(apex_slots_[i], suffix)) return &zones[apex_slots_[i]];
    }
  }
  return nullptr;
}

}  // namespace tidegate::dns
