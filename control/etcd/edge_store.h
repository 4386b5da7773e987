// SPDX-License-Identifier: Apache-2.0
// EdgeStore: the state of an edge in etcd, from one of its controls. It elects the control that leads, has the leader's
// writes decided, and brings this host's state to what was decided. The host's state is a copy: planes go on from it
// without etcd.
//
// Two ways lead to news: a watch stream, at once, and a read every kPollMs, which also says whether etcd answers. A
// read asks a quorum, so a member that is cut off from the others does not answer it.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

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
  std::string site_secret;  // what is stored is sealed with a key made of it
  std::string node, api;    // told to others when this control leads
  bool begin_anew = false;  // an etcd that lost its content gets this host's
  // A new checkpoint is made after so many writes, or when they are larger than the last one and than that.
  uint64_t checkpoint_records = 2'000;
  uint64_t checkpoint_bytes = 8 << 20;
};

class EdgeStore : public WriteJournal {
 public:
  static constexpr uint64_t kPollMs = 1'000;
  static constexpr uint64_t kPollAgainMs = 200;  // after a read without an answer

  // `on_role` is told when this control begins to lead, or ceases.
  EdgeStore(EventLoop& loop, HostState& host_state, EdgeStoreOptions options, std::function<void(bool)> on_role);
  ~EdgeStore() override;
  Result<void> start();
  // Gives the lead up, so that another control need not wait for the lease to end. `done` follows within a second.
  void resign(std::function<void()> done);

  bool leads() const;
  uint64_t term() const { return election_.create_revision(); }  // grows from leader to leader; 0: not elected
  // The answer to a write that this control may not take; nothing if it may.
  std::optional<HttpResponse> refusal() const;
  nlohmann::json describe() const;
  bool answers() const { return answers_; }
  // How many decided writes this host does not have. It counts those of which it has heard.
  uint64_t behind() const;

  void append(const WriteSet& set, std::function<void(Result<JournalPosition>)> done) override;
  void not_stored(const Error& why) override;
  void left_position() override;
  // A leader, here or elsewhere, and this host has what it decides.
  bool hears_a_leader() const { return election_.create_revision() != 0 || (answers_ && leader_ && trouble_.empty()); }

 private:
  using Appended = std::function<void(Result<JournalPosition>)>;
  struct Waiting {
    Head next;
    std::string value;
    Appended done;
  };
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
  Result<void> take_write(uint64_t sequence, const std::string& sealed);
  void on_read(const Result<void>& result);
  void begin_to_lead();
  void store_first();
  // --- the leader's writes
  void after_write();
  void checkpoint_if_due();
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

  bool answers_ = false;  // etcd answered the last read
  std::string silence_;   // why it did not
  std::string trouble_;   // why this host does not have what was decided; empty: it has, or is about to
  bool watching_ = false;
  bool polling_ = false;
  std::optional<LeaderRecord> leader_;
  uint64_t leader_seen_ = 0, head_seen_ = 0;  // the newest revision of the store at which they were known
  bool now_known_ = false;
  std::optional<Head> head_;
  uint64_t head_revision_ = 0;  // its mod revision
  JournalPosition position_;    // of this host's state
  bool off_chain_ = false;      // the journal does not lead on from position_: a checkpoint does
  uint64_t read_from_ = 0;      // the create revision for which the head was read after the election; 0: not yet
  bool beginning_ = false;      // what an earlier leader left is being removed
  bool ready_ = false;          // the election was won, and this host has all that was decided
  bool told_leads_ = false;
  std::optional<Waiting> waiting_;
  bool writing_ = false;  // the head is being moved
  bool checkpointing_ = false;
  std::optional<CheckpointRef> new_checkpoint_;                            // stored, to be named by the head
  std::shared_ptr<EdgeStore*> self_ = std::make_shared<EdgeStore*>(this);  // null once this object is destroyed
  Counter& failures_;
  Counter& elections_;
};

}  // namespace tidegate::etcd
