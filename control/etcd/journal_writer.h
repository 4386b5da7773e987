// SPDX-License-Identifier: Apache-2.0
// JournalWriter: the writes of the control that leads. Each transaction compares the create revision of the leader's
// key: of two controls that both believe they lead, one can write. A write is decided by the transaction that moves the
// head; what is larger than a piece is stored before that.
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
  static constexpr uint64_t kRetryMs = 50;  // after a transaction without an answer

  // `leads`: whether this control may still count itself as the leader. While it may, transactions are repeated.
  JournalWriter(EventLoop& loop, Client& client, const Keys& keys, std::function<bool()> leads);

  // Begins to write for the key with that create revision. What an earlier leader left behind the head is removed.
  // `head`: as etcd has it; nothing: etcd holds no state of this edge yet.
  void begin(uint64_t create_revision, std::optional<Head> head, uint64_t head_revision,
             std::function<void(Result<void>)> done);
  void end() { create_revision_ = 0; }
  bool writes() const { return create_revision_ != 0; }
  const std::optional<Head>& head() const { return head_; }
  uint64_t head_revision() const { return head_revision_; }

  // Moves the head to `next`, after `value` was stored for it. The Error begins with kNotDecided or kNotKnown. One at a
  // time.
  void append(const Head& next, std::string value, std::function<void(Result<void>)> done);
  // Stores a checkpoint beside whatever is appended meanwhile. The head does not name it yet.
  void store_checkpoint(uint64_t sequence, std::string value, std::function<void(Result<void>)> done);
  // Removes what the head no longer needs, and compacts.
  void trim();

 private:
  using Answered = std::function<void(Result<TxnAnswer>)>;
  // Sends the transaction until it is answered, or this control does not lead any more.
  void send(std::shared_ptr<const nlohmann::json> txn, Answered done);
  struct Pieces {
    std::string of;  // where their keys begin
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
  std::vector<std::function<void()>> again_;  // transactions that had no answer
  Timer retry_;
};

}  // namespace tidegate::etcd
