// SPDX-License-Identifier: Apache-2.0
// ChangingMaglev: the table of one pool while members come and go one by one. It gives the same tables as
// build_maglev(), bit for bit, and most of them in a fraction of the time.
//
// Why that is possible: build_maglev() gives slots away turn by turn, and at its turn a member takes the first free
// slot of its permutation. So every slot goes to the earliest turn that wants it, and no turn prefers a slot that a
// later turn got. There is only one such table (it is the one stable matching, because all slots rank turns alike). So
// it can also be reached from the table before, in any order of steps:
//   - A member that leaves frees its slots. Of the turns that passed over a free slot, the earliest takes it, and frees
//     its own. The chain ends at a slot that no turn wants. The additional last turns of the other members take what is
//     left.
//   - A member that comes takes its slots from later turns. Each of these goes on along its permutation, and takes the
//     next slot that is free or belongs to a turn later than itself. The last turns of the others end before that.
// This needs an order of turns that stays the same among the others. It does if all weights are equal. The table is
// built as a whole if the weights differ, if more than kMostChanges members differ, or if there are few members.
//
// Cost with 1,000 members and 65,537 slots: see bench/micro/conf_bench.cc. Memory: about 14 bytes for each slot. One
// thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/maglev.h"

namespace tidegate {

class ChangingMaglev {
 public:
  // Builds the table of these members. `slots` is prime.
  std::vector<uint16_t> build(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key);
  // The number of tables that were derived from the previous table, since the start.
  uint64_t derived() const { return derived_; }

  static constexpr size_t kMostChanges = 4;
  static constexpr size_t kFewestMembers = 256;  // with fewer, a whole build is as fast

 private:
  using Id = uint16_t;  // identifies a member while it is in the table
  static constexpr uint32_t kVacant = UINT32_MAX;
  static constexpr Id kNewMember = UINT16_MAX;

  struct Member {
    std::string name;
    uint64_t rank_hash = 0;
    uint16_t index = 0;
  };
  // The numbers of a member that the search needs.
  struct Walk {
    uint64_t per_distance = 0;  // the inverse of skip modulo the slots, divided by the slots, in units of 2^-64
    uint32_t first_slot = 0, skip = 0;
    uint32_t quota = 0, rank = 0;
  };
  // A turn: the k-th of a member.
  struct Turn {
    Id id = 0;
    uint32_t k = 0;
  };
  struct Change {
    std::vector<Id> leave;
    std::vector<const MaglevMember*> come;
    std::vector<Id> listed;  // the list after the change; kNewMember stands for each new member
  };

  bool find_change(const std::vector<MaglevMember>& members, Change& change) const;
  void remember(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key, uint32_t weight);
  bool prepare();
  void derive_permutation(Id id);
  bool goes_before(Id a, Id b) const;
  void rank_members();
  void note_last(Id id);
  uint32_t quota_of_rank(uint32_t rank, size_t count) const;
  uint32_t position_of(const Walk& walk, uint32_t slot) const;

  void leave(Id id);
  void fill_vacancy(uint32_t slot, uint32_t k);
  bool find_taker(uint32_t slot, uint32_t from_k, Turn& taker, uint32_t& at);
  void take_last_turns();
  Id come(const MaglevMember& source);
  Id add_member(const MaglevMember& source);
  void place(Turn turn, uint32_t from);
  void walk(Turn turn, uint32_t from, uint32_t& slot, uint32_t& at) const;
  void find_near_the_end(Turn turn, uint32_t from, uint32_t& slot, uint32_t& at) const;
  void set(Turn turn, uint32_t slot, uint32_t at);

  static Turn turn_of(uint32_t owner) { return {static_cast<Id>(owner & 0xffff), owner >> 16}; }
  uint64_t order_of(Turn turn) const { return uint64_t{turn.k} << 32 | walks_[turn.id].rank; }
  uint32_t& slot_of(Turn turn) { return slot_of_[size_t{turn.id} * most_turns_ + turn.k]; }
  uint32_t slot_of(Turn turn) const { return slot_of_[size_t{turn.id} * most_turns_ + turn.k]; }
  uint32_t& position(Turn turn) { return position_[size_t{turn.id} * most_turns_ + turn.k]; }
  uint32_t position(Turn turn) const { return position_[size_t{turn.id} * most_turns_ + turn.k]; }

  uint32_t slots_ = 0;  // 0: nothing to derive from
  HashKey key_;
  uint32_t weight_ = 0, margin_ = 0;
  uint32_t most_turns_ = 0;             // room for each member
  std::vector<uint32_t> slot_of_turn_;  // of the last whole build, until the first change
  std::vector<Member> members_;         // by Id; those in free_ids_ are not in the table
  std::vector<Walk> walks_;             // by Id
  std::vector<Id> free_ids_;
  std::vector<Id> ranked_;                    // the members in the table, by rank
  std::vector<Id> listed_;                    // the same, in the order of the last list
  std::vector<uint32_t> owner_;               // by slot: k << 16 | Id, or kVacant
  std::vector<uint32_t> slot_of_, position_;  // by turn: its slot, and that slot's position in the permutation
  // By Id, for find_taker(): 2^32 * inverse / slots, and the position of the last turn in units of slots / 2^32. Those
  // of Ids that are not in the table match nothing.
  std::vector<uint32_t> coarse_, coarse_first_, coarse_last_;
  std::vector<uint32_t> vacant_, passed_;
  std::vector<uint16_t> table_;
  Id newest_ = 0;  // of the newest member
  uint64_t derived_ = 0;
};

}  // namespace tidegate
