// SPDX-License-Identifier: Apache-2.0
// EdgeStore: the state of an edge in etcd, from one of its controls. It takes part in the election of the leader, lets
// etcd decide the leader's writes, and updates this host's state to the decided state. The host's state is a copy, so
// planes can work without etcd.
//
// News come in two ways: at once by a watch stream, and by a read every kPollMs, which also shows whether etcd answers.
// A read needs a quorum, so a member that is cut off from the others cannot answer it.
//
// Threads: the control's loop. A large write and the whole state are sealed and opened outside of it.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "control/api/background.h"
#include "control/etcd/client.h"
#include "control/etcd/election.h"
#include "control/etcd/journal_reader.h"
#include "control/etcd/journal_writer.h"
#include "control/etcd/records.h"
#include "control/host_state.h"
#include "core/event_loop.h"
#include "core/http_server.h"
#include "core/metrics.h"

namespace tidegate::etcd {

struct EdgeStoreOptions {
  ClientOptions client;
  std::string prefix = "/tidegate/";
  uint64_t lease_s = 2;
  std::string site_secret;  // stored data is sealed with a key derived from it
  std::string node, api;    // other controls see these when this control leads
  bool begin_anew = false;  // an etcd that lost its content gets this host's state
  // A new checkpoint is made after checkpoint_records writes, or when the writes are larger than the last checkpoint
  // and larger than checkpoint_bytes.
  uint64_t checkpoint_records = 2'000;
  uint64_t checkpoint_bytes = 8 << 20;
};

class EdgeStore : public WriteJournal {
 public:
  static constexpr uint64_t kPollMs = 1'000;
  static constexpr uint64_t kPollAgainMs = 200;  // pause after a read without an answer

  // `on_role` is called when this control begins or ceases to lead.
  EdgeStore(EventLoop& loop, HostState& host_state, EdgeStoreOptions options, std::function<void(bool)> on_role);
  ~EdgeStore() override;
  Result<void> start();
  // Gives up the leadership at once. So another control need not wait for the end of the lease. `done` is called within
  // a second.
  void resign(std::function<void()> done);

  bool leads() const;
  uint64_t term() const { return election_.create_revision(); }  // grows with each leader; 0: not elected
  // The answer to a write that this control may not accept; nothing if it may.
  std::optional<HttpResponse> refusal() const;
  nlohmann::json describe() const;
  bool answers() const { return answers_; }
  // The number of decided writes that this host knows of and has not adopted.
  uint64_t behind() const;

  void append(std::shared_ptr<const WriteSet> set, std::function<void(Result<JournalPosition>)> done) override;
  void not_stored(const Error& why) override;
  void left_position() override;
  // True if there is a leader, here or elsewhere, and this host has its decisions.
  bool hears_a_leader() const { return election_.create_revision() != 0 || (answers_ && leader_ && trouble_.empty()); }

 private:
  using Appended = std::function<void(Result<JournalPosition>)>;
  struct Waiting {
    Head next;
    std::string value;
    Appended done;
  };
  struct Sealed {
    std::string value, digest;
  };
  struct SealedState {
    JournalPosition position;
    Sealed sealed;
  };
  // The whole state of this host, sealed outside of the loop. Returns false if it cannot begin.
  bool seal_state(std::function<void(Result<SealedState>)> done);
  void move_head(const Head& next, std::string value, std::function<void(Result<void>)> done);
  // --- news (edge_store.cc)
  void poll();
  void watch_from(uint64_t revision);
  void take_now(const Range& range);
  void take_key(const KeyValue& kv, bool erased, uint64_t revision);
  // --- election
  void step();
  void ask_grant();
  void ask_campaign();
  void ask_renewal();
  void settle_role();
  // --- this host's state (edge_store_state.cc)
  void catch_up();
  void read_journal();
  void read_checkpoint();
  struct Opened {
    std::string previous, digest;
    std::shared_ptr<const WriteSet> set;
  };
  void open(JournalReader::Pieces pieces, std::function<void(Result<Opened>)> then);
  void take_write(uint64_t sequence, Result<Opened> opened, const JournalReader::Taken& taken);
  void adopt(std::shared_ptr<const WriteSet> set, const JournalPosition& position, const JournalReader::Taken& taken);
  void on_read(const Result<void>& result);
  void begin_to_lead();
  void store_first();
  void store_first(SealedState state);
  // --- the leader's writes
  void refuse(Appended done, const std::string& why);
  void take_sealed(const std::string& previous, std::optional<Sealed> sealed, Appended done);
  void after_write();
  void checkpoint_if_due();
  void store_checkpoint(SealedState state);
  void name_checkpoint();
  void step_down(const std::string& why);
  void trouble(const std::string& why);

  EventLoop& loop_;
  HostState& host_state_;
  EdgeStoreOptions options_;
  std::function<void(bool)> on_role_;
  Keys keys_;
  std::string seal_key_;
  Client client_;
  Election election_;
  JournalReader reader_;
  JournalWriter writer_;
  Timer poll_timer_, step_timer_;

  bool answers_ = false;  // etcd has answered the last read
  std::string silence_;   // why it has not
  std::string trouble_;   // why this host does not have the decided state; empty: it has it, or is about to
  bool watching_ = false;
  bool polling_ = false;
  std::optional<LeaderRecord> leader_;
  uint64_t leader_seen_ = 0, head_seen_ = 0;  // the store revisions at which the leader and the head were last seen
  bool now_known_ = false;
  std::optional<Head> head_;
  uint64_t head_revision_ = 0;  // mod revision of the head
  JournalPosition position_;    // position of this host's state
  bool off_chain_ = false;      // the journal does not continue from position_, so a checkpoint must be read
  uint64_t read_from_ = 0;      // create revision for which the head was read after the election; 0: not yet
  bool beginning_ = false;      // leftovers of an earlier leader are being removed
  bool ready_ = false;          // the election was won, and this host has all decided writes
  bool told_leads_ = false;
  bool sealing_ = false;  // a write is being sealed outside of the loop
  std::optional<Waiting> waiting_;
  bool writing_ = false;  // the head is being moved
  bool checkpointing_ = false;
  std::optional<CheckpointRef> new_checkpoint_;                            // stored, but not named by the head yet
  std::shared_ptr<EdgeStore*> self_ = std::make_shared<EdgeStore*>(this);  // null once this object is destroyed
  Counter& failures_;
  Counter& elections_;
  Background seals_, opens_;
};

}  // namespace tidegate::etcd
