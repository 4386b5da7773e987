// SPDX-License-Identifier: Apache-2.0
// LeftVips: the VIP addresses that this forwarder leaves to another forwarder on its link, although it holds them by
// its own state. The state may be old if this host's control hears no leader: the leader may have given the addresses
// to another forwarder.
//
// Silence alone moves no address: a cut management network must take no VIP down. An address is left only if both are
// true: control has heard no leader for kUnheardNs, and another forwarder on the link claims the address, by itself or
// because it is asked (VipAsker). It is taken back when control has heard a leader for kHeardAgainNs (by then the state
// says who holds it), or when nobody on the link has answered for it in three rounds of questions. If several
// forwarders left it to each other, the first in the order of nodes takes it back a second before the next one.
//
// Pure: time, claims and who made them are arguments. Threads: the main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "l4/conflict_board.h"

namespace tidegate::l4 {

class LeftVips {
 public:
  static constexpr uint64_t kUnheardNs = 3'000'000'000;  // with etcd, another control leads within this time
  static constexpr uint64_t kHeardAgainNs = 1'000'000'000;
  static constexpr uint64_t kClaimCountsNs = 10'000'000'000;  // how long a claim counts that came before the silence
  static constexpr size_t kRounds = 3;

  // At the start, control counts as having just heard a leader.
  explicit LeftVips(uint64_t now_ns) : heard_ns_(now_ns) {}

  // Call it when this host's control has said whether it hears the leader.
  void on_control(bool hears_leader, uint64_t now_ns);
  // Call it when a station claims an address that we hold by the state, or that we left.
  void on_claim(const AddressConflict& claim, uint64_t now_ns);

  // The name of the node whose forwarder has this MAC address; empty: no forwarder that we know.
  using ForwarderOf = std::function<std::string(const Mac&)>;
  // Decides by the reports and claims since the last call. `place`: the place of this node in the order of nodes with
  // forwarders. Returns true if alone() or left() has changed.
  bool settle(const ForwarderOf& forwarder_of, uint32_t place, uint64_t now_ns);

  // Control has heard no leader for a while.
  bool alone() const { return alone_; }
  // The addresses that are left, with the nodes whose forwarders claim them.
  const std::map<IpAddress, std::string>& left() const { return left_; }

 private:
  struct Claim {
    Mac by;
    uint64_t at_ns = 0;
  };
  bool settle_alone(uint64_t now_ns);

  uint64_t heard_ns_;            // when control last said that it hears a leader
  uint64_t heard_since_ns_ = 0;  // since when it has said so without a break; 0: it does not
  bool alone_ = false;
  std::map<IpAddress, Claim> claims_;       // the last of each address
  std::map<IpAddress, uint64_t> answered_;  // when a station last answered for an address that is left
  std::map<IpAddress, std::string> left_;
};

}  // namespace tidegate::l4
