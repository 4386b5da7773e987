// SPDX-License-Identifier: Apache-2.0
// JournalWriter: the writes of the control that leads. Each transaction compares the create revision of the leader's
// key. So if two controls believe that they lead, only one can write. The transaction that moves the head decides a
// write. A write that is larger than a piece is stored before that.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "control/etcd/client.h"
#include "control/etcd/records.h"
#include "core/event_loop.h"

namespace tidegate::etcd {

class JournalWriter {
 public:
  static constexpr uint64_t kRetryMs = 50;  // pause after a transaction without an answer

  // `leads`: whether this control may still count itself as the leader. Transactions are repeated only as long as it
  // may.
  JournalWriter(EventLoop& loop, Client& client, const Keys& keys, std::function<bool()> leads);

  // Begins to write for the leader's key with that create revision. Removes records that an earlier leader left after
  // the head. `head`: the head in etcd. Nothing: etcd has no state of this edge yet.
  void begin(uint64_t create_revision, std::optional<Head> head, uint64_t head_revision,
             std::function<void(Result<void>)> done);
  void end() { create_revision_ = 0; }
  bool writes() const { return create_revision_ != 0; }
  const std::optional<Head>& head() const { return head_; }
  uint64_t head_revision() const { return head_revision_; }

  // Stores `value` and then moves the head to `next`. The Error begins with kNotDecided or kNotKnown. One call at a
  // time.
  void append(const Head& next, std::string value, std::function<void(Result<void>)> done);
  // Stores a checkpoint while other values may be appended. The head does not name it yet.
  void store_checkpoint(uint64_t sequence, std::string value, std::function<void(Result<void>)> done);
  // Removes values that the head no longer needs, and compacts.
  void trim();

 private:
  using Answered = std::function<void(Result<TxnAnswer>)>;
  // Sends the transaction again until it is answered, or until this control does not lead any more.
  void send(std::shared_ptr<const nlohmann::json> txn, Answered done);
  struct Pieces {
    std::string of;  // common beginning of their keys
    std::string value;
    uint64_t count = 0;
    std::pair<std::string, std::string> put(uint64_t index) const;
  };
  static std::shared_ptr<const Pieces> pieces_of(std::string key, std::string value);
  void put_pieces(const std::shared_ptr<const Pieces>& pieces, uint64_t index, std::function<void(Result<void>)> done);
  void move_head(const Head& next, const std::shared_ptr<const Pieces>& last, std::function<void(Result<void>)> done);
  Result<void> check_moved(const Head& next, const TxnAnswer& answer);
  Txn guarded() const;
  Error lost(const TxnAnswer& answer) const;

  Client& client_;
  const Keys& keys_;
  std::function<bool()> leads_;
  uint64_t create_revision_ = 0;
  std::optional<Head> head_;
  uint64_t head_revision_ = 0;                // mod revision of the head's key; 0: it does not exist
  std::vector<std::function<void()>> again_;  // transactions that got no answer
  Timer retry_;
};

}  // namespace tidegate::etcd
