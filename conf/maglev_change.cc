// SPDX-License-Identifier: Apache-2.0
#include "conf/maglev_change.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"

namespace tidegate {
namespace {

// The work of a change grows with the square of this number. The work of a whole build does not.
constexpr uint32_t kMostTurnsOfAMember = 100;
// Before this many slots are left for a turn, walking along the permutation takes fewer steps than looking at each of
// them.
constexpr uint32_t kNearTheEnd = 1'024;
constexpr size_t kLanes = 32;

bool has_equal_weights(const std::vector<MaglevMember>& members, size_t& count, uint32_t& weight) {
  count = 0;
  weight = 0;
  for (const MaglevMember& member : members) {
    if (member.weight == 0) continue;
    if (weight != 0 && member.weight != weight) return false;
    weight = member.weight;
    ++count;
  }
  return true;
}

uint32_t step_by(uint32_t slot, uint32_t by, uint32_t slots) { return std::min(slot + by, slot + by - slots); }

uint64_t inverse_modulo(uint32_t value, uint32_t slots) {
  auto a = static_cast<int64_t>(slots), b = static_cast<int64_t>(value);
  int64_t x = 0, y = 1;
  while (b != 0) {
    const int64_t quotient = a / b;
    a = std::exchange(b, a - quotient * b);
    x = std::exchange(y, x - quotient * y);
  }
  return static_cast<uint64_t>(x < 0 ? x + slots : x);
}

// The question of find_taker() about a slot: which members may have passed over the slot? `margin` covers the rounding
// of `coarse`.
struct PassedQuestion {
  const uint32_t *first, *coarse, *last;  // by Id, as many as a multiple of kLanes
  size_t ids;
  uint32_t slot, margin;
};

// Writes the ids to `found` and returns how many there are.
size_t find_passed_by_any(const PassedQuestion& ask, uint32_t* found) {
  size_t count = 0;
  for (size_t id = 0; id < ask.ids; ++id) {
    found[count] = static_cast<uint32_t>(id);
    count += size_t{(ask.slot - ask.first[id]) * ask.coarse[id] + ask.margin <= ask.last[id]};
  }
  return count;
}

#ifdef __x86_64__
using EightWords [[gnu::vector_size(32)]] = uint32_t;
using EightFloats [[gnu::vector_size(32)]] = float;

// One bit for each of eight members.
[[gnu::target("avx2"), gnu::always_inline]] inline uint32_t passed_of_eight(const PassedQuestion& ask, size_t id) {
  EightWords first, coarse, last;
  __builtin_memcpy(&first, ask.first + id, sizeof first);
  __builtin_memcpy(&coarse, ask.coarse + id, sizeof coarse);
  __builtin_memcpy(&last, ask.last + id, sizeof last);
  const auto passed = ((ask.slot - first) * coarse + ask.margin) <= last;
  EightFloats signs;
  __builtin_memcpy(&signs, &passed, sizeof signs);
  return static_cast<uint32_t>(__builtin_ia32_movmskps256(signs));
}

[[gnu::target("avx2")]] size_t find_passed_by_avx2(const PassedQuestion& ask, uint32_t* found) {
  size_t count = 0;
  for (size_t id = 0; id < ask.ids; id += kLanes) {
    uint32_t mask = passed_of_eight(ask, id) | passed_of_eight(ask, id + 8) << 8 | passed_of_eight(ask, id + 16) << 16 |
                    passed_of_eight(ask, id + 24) << 24;
    for (; mask != 0; mask &= mask - 1) {
      found[count++] = static_cast<uint32_t>(id) + static_cast<uint32_t>(__builtin_ctz(mask));
    }
  }
  return count;
}
const auto kFindPassed = __builtin_cpu_supports("avx2") != 0 ? find_passed_by_avx2 : find_passed_by_any;
#else
const auto kFindPassed = find_passed_by_any;
#endif

}  // namespace

std::vector<uint16_t> ChangingMaglev::build(const std::vector<MaglevMember>& members, uint32_t slots,
                                            const HashKey& key) {
  size_t count = 0;
  uint32_t weight = 0;
  const bool equal = has_equal_weights(members, count, weight) && count >= kFewestMembers && count <= slots &&
                     slots / count <= kMostTurnsOfAMember;
  Change change;
  const bool same = slots_ == slots && key_.k0 == key.k0 && key_.k1 == key.k1 && weight_ == weight;
  if (equal && same && find_change(members, change) && prepare()) {
    for (const Id id : change.leave) leave(id);
    auto place_in_list = change.listed.begin();
    for (const MaglevMember* member : change.come) {
      place_in_list = std::find(place_in_list, change.listed.end(), kNewMember);
      *place_in_list = come(*member);
    }
    listed_ = std::move(change.listed);
    ++derived_;
    return table_;
  }
  slots_ = 0;
  if (!equal) return build_maglev(members, slots, key);
  std::vector<uint16_t> table = build_maglev(members, slots, key, &slot_of_turn_);
  remember(members, slots, key, weight);
  return table;
}

// Does only the cheap work. prepare() does the rest when the first change comes.
void ChangingMaglev::remember(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key,
                              uint32_t weight) {
  slots_ = slots;
  key_ = key;
  weight_ = weight;
  margin_ = slots / 2 + 1;
  members_.clear();
  free_ids_.clear();
  listed_.clear();
  for (const MaglevMember& member : members) {
    if (member.weight == 0) continue;
    listed_.push_back(static_cast<Id>(members_.size()));
    Member& kept = members_.emplace_back();
    kept.name = member.name;
    kept.index = member.index;
  }
  most_turns_ = quota_of_rank(0, listed_.size() - listed_.size() / 8) + 1;
}

bool ChangingMaglev::find_change(const std::vector<MaglevMember>& members, Change& change) const {
  size_t at = 0;  // position in listed_
  change.listed.reserve(members.size());
  for (const MaglevMember& member : members) {
    if (member.weight == 0) continue;
    size_t ahead = at;
    const size_t end = std::min(listed_.size(), at + kMostChanges + 1);
    while (ahead < end && members_[listed_[ahead]].name != member.name) ++ahead;
    if (ahead == end) {
      change.come.push_back(&member);
      change.listed.push_back(kNewMember);
    } else {
      if (members_[listed_[ahead]].index != member.index) return false;
      for (; at < ahead; ++at) change.leave.push_back(listed_[at]);
      change.listed.push_back(listed_[at++]);
    }
    if (change.leave.size() + change.come.size() > kMostChanges) return false;
  }
  for (; at < listed_.size(); ++at) change.leave.push_back(listed_[at]);
  if (change.leave.size() + change.come.size() > kMostChanges) return false;
  // A new member must really be new: it did not only move in the list, and its name is there only once.
  for (const MaglevMember* member : change.come) {
    const auto has_its_name = [&](Id id) { return members_[id].name == member->name; };
    if (std::any_of(listed_.begin(), listed_.end(), has_its_name)) return false;
  }
  return quota_of_rank(0, listed_.size() - change.leave.size()) < most_turns_;
}

uint32_t ChangingMaglev::quota_of_rank(uint32_t rank, size_t count) const {
  return slots_ / static_cast<uint32_t>(count) + (rank < slots_ % count ? 1 : 0);
}

void ChangingMaglev::derive_permutation(Id id) {
  const MaglevPermutation permutation = maglev_permutation(members_[id].name, slots_, key_);
  members_[id].rank_hash = permutation.rank_hash;
  const uint64_t inverse = inverse_modulo(permutation.skip, slots_);
  const uint64_t whole = UINT64_MAX / slots_, rest = uint64_t{0} - whole * slots_;
  walks_[id] = {inverse * whole + inverse * rest / slots_, permutation.first_slot, permutation.skip, 0, 0};
  coarse_[id] = static_cast<uint32_t>(((inverse << 32) + slots_ / 2) / slots_);
  coarse_first_[id] = permutation.first_slot;
}

bool ChangingMaglev::goes_before(Id a, Id b) const {
  if (members_[a].rank_hash != members_[b].rank_hash) return members_[a].rank_hash < members_[b].rank_hash;
  return members_[a].name < members_[b].name;
}

// Derives what a change needs from the turns of a whole build. Returns false if a name is there twice.
bool ChangingMaglev::prepare() {
  if (slot_of_turn_.empty()) return true;
  const auto count = static_cast<uint32_t>(members_.size());
  const size_t room = (count + kLanes - 1) / kLanes * kLanes;
  slot_of_.assign(room * most_turns_, 0);
  position_.assign(room * most_turns_, 0);
  coarse_.assign(room, 0);
  coarse_first_.assign(room, 0);
  coarse_last_.assign(room, 0);
  walks_.assign(room, {});
  owner_.assign(slots_, kVacant);
  table_.assign(slots_, 0);
  vacant_.clear();
  ranked_ = listed_;
  for (const Id id : ranked_) derive_permutation(id);
  std::sort(ranked_.begin(), ranked_.end(), [this](Id a, Id b) { return goes_before(a, b); });
  const auto same_name = [this](Id a, Id b) { return members_[a].name == members_[b].name; };
  if (std::adjacent_find(ranked_.begin(), ranked_.end(), same_name) != ranked_.end()) return false;
  rank_members();
  for (uint32_t turn = 0; turn < slots_; ++turn) {
    const Id id = ranked_[turn % count];
    set({id, turn / count}, slot_of_turn_[turn], position_of(walks_[id], slot_of_turn_[turn]));
    walks_[id].quota = turn / count + 1;
  }
  for (const Id id : ranked_) note_last(id);
  slot_of_turn_ = {};
  return true;
}

void ChangingMaglev::rank_members() {
  for (uint32_t rank = 0; rank < ranked_.size(); ++rank) walks_[ranked_[rank]].rank = rank;
}

// The rounding error is less than half of one step for up to 2^24 slots.
uint32_t ChangingMaglev::position_of(const Walk& walk, uint32_t slot) const {
  const uint64_t steps = (uint64_t{slot} - walk.first_slot) * walk.per_distance + (uint64_t{1} << 63) / slots_;
  return static_cast<uint32_t>(static_cast<unsigned __int128>(steps) * slots_ >> 64);
}

void ChangingMaglev::note_last(Id id) {
  const uint64_t last = position({id, walks_[id].quota - 1});
  const uint64_t units = (last << 32) / slots_ + 2 * uint64_t{margin_} + 1;
  coarse_last_[id] = static_cast<uint32_t>(std::min<uint64_t>(units, UINT32_MAX));
}

void ChangingMaglev::set(Turn turn, uint32_t slot, uint32_t at) {
  slot_of(turn) = slot;
  position(turn) = at;
  owner_[slot] = turn.k << 16 | turn.id;
  table_[slot] = members_[turn.id].index;
}

void ChangingMaglev::leave(Id id) {
  Walk& member = walks_[id];
  ranked_.erase(ranked_.begin() + member.rank);
  rank_members();
  coarse_last_[id] = 0;
  coarse_first_[id] = 0;
  coarse_[id] = 0;
  for (uint32_t k = 0; k < member.quota; ++k) owner_[slot_of({id, k})] = kVacant;
  vacant_.clear();
  for (uint32_t k = 0; k < member.quota; ++k) fill_vacancy(slot_of({id, k}), k);
  member.quota = 0;
  free_ids_.push_back(id);
  take_last_turns();
}

// Follows the chain that begins at a free slot, which belonged to a k-th turn.
void ChangingMaglev::fill_vacancy(uint32_t slot, uint32_t k) {
  Turn taker{0, k};
  uint32_t at = 0;
  while (find_taker(slot, taker.k, taker, at)) {
    const uint32_t freed = slot_of(taker);
    set(taker, slot, at);
    owner_[freed] = kVacant;
    if (taker.k + 1 == walks_[taker.id].quota) note_last(taker.id);
    slot = freed;
  }
  vacant_.push_back(slot);
}

// The earliest turn that passed over the slot. It is not before the `from_k`-th turns, because the slot belonged to one
// of those.
bool ChangingMaglev::find_taker(uint32_t slot, uint32_t from_k, Turn& taker, uint32_t& at) {
  passed_.resize(coarse_.size() + 1);
  const PassedQuestion ask{coarse_first_.data(), coarse_.data(), coarse_last_.data(), coarse_.size(), slot, margin_};
  const size_t count = kFindPassed(ask, passed_.data());
  uint32_t before_k = UINT32_MAX - 1, before_rank = 0;  // rank and turn of the earliest so far
  for (size_t i = 0; i < count; ++i) {
    const uint32_t id = passed_[i];
    const Walk& walk = walks_[id];
    // Only its turns before the earliest one so far count. Of these, the first that is beyond the slot counts. Members
    // that are not in the table have no turns.
    const uint32_t turns = std::min(walk.quota, before_k + (walk.rank < before_rank ? 1 : 0));
    const uint32_t* begin = &position_[size_t{id} * most_turns_];
    const uint32_t here = position_of(walk, slot);
    if (turns == 0 || begin[turns - 1] <= here) continue;
    before_k =
        static_cast<uint32_t>(std::upper_bound(begin + std::min(from_k, turns - 1), begin + turns, here) - begin);
    before_rank = walk.rank;
    taker = {static_cast<Id>(id), before_k};
    at = here;
  }
  return before_k != UINT32_MAX - 1;
}

// Some slots are still vacant. Members take them in additional turns, after all regular turns.
void ChangingMaglev::take_last_turns() {
  // In the order of turns: the k-th turns of all members come before the next ones.
  for (uint32_t k = walks_[ranked_.back()].quota; !vacant_.empty(); ++k) {
    for (uint32_t rank = 0; rank < ranked_.size(); ++rank) {
      const Id id = ranked_[rank];
      Walk& member = walks_[id];
      if (member.quota != k || k == quota_of_rank(rank, ranked_.size())) continue;
      size_t nearest = 0;
      uint32_t fewest = UINT32_MAX;
      for (size_t i = 0; i < vacant_.size(); ++i) {
        const uint32_t here = position_of(member, vacant_[i]);
        if (here < fewest) nearest = i;
        fewest = std::min(fewest, here);
      }
      TIDEGATE_ASSERT(!vacant_.empty(), "there is a slot for each turn");
      const uint32_t slot = vacant_[nearest];
      vacant_[nearest] = vacant_.back();
      vacant_.pop_back();
      set({id, member.quota++}, slot, fewest);
      note_last(id);
    }
    TIDEGATE_ASSERT(k <= most_turns_, "each slot is taken by a turn");
  }
}

ChangingMaglev::Id ChangingMaglev::come(const MaglevMember& source) {
  const Id id = add_member(source);
  vacant_.clear();
  const size_t count = ranked_.size();
  for (const Id other : ranked_) {
    Walk& member = walks_[other];
    if (other == id || member.quota == quota_of_rank(member.rank, count)) continue;
    while (member.quota > quota_of_rank(member.rank, count)) {
      const uint32_t slot = slot_of({other, --member.quota});
      owner_[slot] = kVacant;
      vacant_.push_back(slot);
    }
    note_last(other);
  }
  Walk& fresh = walks_[id];
  const uint32_t quota = quota_of_rank(fresh.rank, count);
  for (uint32_t k = 0; k < quota; ++k) {
    ++fresh.quota;
    place({id, k}, k == 0 ? 0 : position({id, k - 1}) + 1);
  }
  TIDEGATE_ASSERT(vacant_.empty(), "each slot is taken by a turn");
  return id;
}

ChangingMaglev::Id ChangingMaglev::add_member(const MaglevMember& source) {
  if (free_ids_.empty()) {
    free_ids_.push_back(static_cast<Id>(members_.size()));
    members_.emplace_back();
    while (coarse_.size() < members_.size()) {
      for (std::vector<uint32_t>* each : {&coarse_, &coarse_first_, &coarse_last_}) each->resize(each->size() + kLanes);
      walks_.resize(coarse_.size());
      slot_of_.resize(coarse_.size() * most_turns_);
      position_.resize(coarse_.size() * most_turns_);
    }
  }
  const Id id = free_ids_.back();
  free_ids_.pop_back();
  Member& member = members_[id];
  member = Member{};
  member.name = source.name;
  member.index = source.index;
  derive_permutation(id);
  ranked_.insert(std::lower_bound(ranked_.begin(), ranked_.end(), id, [this](Id a, Id b) { return goes_before(a, b); }),
                 id);
  rank_members();
  newest_ = id;
  return id;
}

// The turn takes the first slot, from the position `from` on, that is free or belongs to a later turn. A turn that
// loses its slot in this way looks for another slot in the same way.
void ChangingMaglev::place(Turn turn, uint32_t from) {
  for (;;) {
    const uint64_t turns_before = uint64_t{turn.k} * ranked_.size() + walks_[turn.id].rank;
    uint32_t slot = 0, at = 0;
    if (slots_ - turns_before > kNearTheEnd) {
      walk(turn, from, slot, at);
    } else {
      find_near_the_end(turn, from, slot, at);
    }
    const uint32_t holder = owner_[slot];
    set(turn, slot, at);
    if (turn.k + 1 == walks_[turn.id].quota) note_last(turn.id);
    if (holder == kVacant) {
      vacant_.erase(std::find(vacant_.begin(), vacant_.end(), slot));
      return;
    }
    turn = turn_of(holder);
    from = position(turn) + 1;
  }
}

void ChangingMaglev::walk(Turn turn, uint32_t from, uint32_t& slot, uint32_t& at) const {
  const Walk& member = walks_[turn.id];
  const uint64_t order = order_of(turn);
  slot = static_cast<uint32_t>((uint64_t{from} * member.skip + member.first_slot) % slots_);
  for (at = from; owner_[slot] != kVacant && order_of(turn_of(owner_[slot])) < order; ++at) {
    slot = step_by(slot, member.skip, slots_);
  }
}

// Finds the same slot as walk(). It examines only the slots that are free or belong to a later turn. Near the end there
// are few of them.
void ChangingMaglev::find_near_the_end(Turn turn, uint32_t from, uint32_t& slot, uint32_t& at) const {
  const Walk& member = walks_[turn.id];
  at = UINT32_MAX;
  const auto consider = [&](uint32_t candidate) {
    const uint32_t here = position_of(member, candidate);
    if (here < from || here >= at) return;
    at = here;
    slot = candidate;
  };
  for (const uint32_t candidate : vacant_) consider(candidate);
  const uint32_t most = quota_of_rank(0, ranked_.size());
  for (uint32_t k = turn.k; k < most; ++k) {
    for (size_t rank = k == turn.k ? member.rank + 1 : 0; rank < ranked_.size(); ++rank) {
      const Id id = ranked_[rank];
      if (walks_[id].quota <= k) {
        if (k + 1 == most && id != newest_) break;  // only the first in rank have a last turn
        continue;
      }
      consider(slot_of({id, k}));
    }
  }
  TIDEGATE_ASSERT(at != UINT32_MAX, "there is a slot for each turn");
}

}  // namespace tidegate
