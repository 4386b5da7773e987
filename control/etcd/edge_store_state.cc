// SPDX-License-Identifier: Apache-2.0
// How this host's state follows the decided writes, and how the leader lets etcd decide its own writes.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "control/etcd/edge_store.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate::etcd {

namespace {

bool is_small(const WriteSet& set) {
  size_t bytes = 0;
  for (const WriteSet::Change& change : set.changes) {
    bytes += change.key.size() + (change.value ? change.value->size() : 0);
    if (bytes > kSealedAtOnceBytes) return false;
  }
  return set.secrets.empty();
}

}  // namespace

void EdgeStore::trouble(const std::string& why) {
  if (why != trouble_) log_error("etcd: {}", why);
  trouble_ = why;
  election_.may_lead(false);
  if (election_.create_revision() != 0) step_down(why);
}

void EdgeStore::catch_up() {
  if (!now_known_ || reader_.reading() || ready_ || beginning_) return;
  // A write from when this control led: its result comes first.
  if (sealing_ || writing_ || waiting_) return;
  if (!head_ && position_.sequence != 0 && !options_.begin_anew) {
    return trouble(fmt::format(
        "it holds nothing of this edge, but this host has {} writes that were decided there. A person must decide: "
        "restore etcd, or start the control with the newest state with --etcd-begin",
        position_.sequence));
  }
  if (head_ && position_.sequence > head_->position.sequence) {
    return trouble(fmt::format(
        "it is at write {}, behind this host's state ({}): etcd lost writes that were decided. A person must decide",
        head_->position.sequence, position_.sequence));
  }
  if (!head_ || position_ == head_->position) {
    if (!trouble_.empty()) log_info("etcd: this host has all that was decided");
    trouble_.clear();
    off_chain_ = false;
    election_.may_lead(true);
    return begin_to_lead();
  }
  const bool journal_leads_on = position_.sequence != 0 && !position_.digest.empty() && !off_chain_ &&
                                position_.sequence < head_->position.sequence && position_.sequence + 1 >= head_->first;
  journal_leads_on ? read_journal() : read_checkpoint();
}

void EdgeStore::read_journal() {
  reader_.read(
      keys_.journal(position_.sequence + 1), keys_.journal(head_->position.sequence + 1),
      [this](uint64_t sequence, JournalReader::Pieces pieces, JournalReader::Taken taken) {
        open(std::move(pieces), [this, sequence, taken = std::move(taken)](Result<Opened> opened) {
          take_write(sequence, std::move(opened), taken);
        });
      },
      [this, before = position_](const Result<void>& result) {
        if (result && position_ == before) off_chain_ = true;  // the journal was trimmed meanwhile
        on_read(result);
      });
}

// Opens a large write outside of the loop.
void EdgeStore::open(JournalReader::Pieces pieces, std::function<void(Result<Opened>)> then) {
  const bool small = pieces.size() == 1 && pieces[0].size() <= kSealedAtOnceBytes;
  auto read = [key = seal_key_, pieces = std::move(pieces)]() -> Result<Opened> {
    size_t bytes = 0;
    for (const std::string& piece : pieces) bytes += piece.size();
    std::string sealed;
    sealed.reserve(bytes);
    for (const std::string& piece : pieces) sealed += piece;
    Opened opened;
    Result<Write> write = open_write(key, sealed, opened.digest);
    if (!write) return write.error();
    opened.previous = std::move(write->previous);
    opened.set = std::make_shared<const WriteSet>(std::move(write->set));
    return opened;
  };
  if (small) return then(read());
  const bool begun = opens_.run(std::move(read), [then = std::move(then)](std::optional<Result<Opened>> opened) {
    then(opened ? *std::move(opened) : fail("it could not be opened; the log says why"));
  });
  TIDEGATE_ASSERT(begun, "one write is opened at a time");
}

void EdgeStore::take_write(uint64_t sequence, Result<Opened> opened, const JournalReader::Taken& taken) {
  if (!opened) return taken(fail(fmt::format("write {}: {}", sequence, opened.error().message)));
  if (sequence != position_.sequence + 1 || opened->previous != position_.digest) {
    off_chain_ = true;
    log_warn("etcd: write {} does not follow this host's write {}: everything is fetched again", sequence,
             position_.sequence);
    return taken({});
  }
  if (off_chain_) return taken({});
  adopt(std::move(opened->set), {sequence, std::move(opened->digest)}, taken);
}

void EdgeStore::adopt(std::shared_ptr<const WriteSet> set, const JournalPosition& position,
                      const JournalReader::Taken& taken) {
  host_state_.adopt(std::move(set), position, [self = self_, position, taken](const Result<void>& adopted) {
    if (*self == nullptr) return;
    if (adopted) (*self)->position_ = position;
    taken(adopted);
  });
}

void EdgeStore::read_checkpoint() {
  const JournalPosition to = head_->checkpoint.position;
  log_info("etcd: the whole state is fetched, as of write {} (this host is at {})", to.sequence, position_.sequence);
  reader_.read(
      keys_.checkpoint(to.sequence), keys_.checkpoint(to.sequence + 1),
      [this, to](uint64_t, JournalReader::Pieces pieces, JournalReader::Taken taken) {
        open(std::move(pieces), [this, to, taken = std::move(taken)](Result<Opened> opened) {
          if (!opened) return taken(fail("the checkpoint: " + opened.error().message));
          if (!opened->set->whole) return taken(fail("the checkpoint is not whole"));
          adopt(std::move(opened->set), to, [this, taken](const Result<void>& adopted) {
            if (adopted) off_chain_ = false;
            taken(adopted);
          });
        });
      },
      [this, before = position_](const Result<void>& result) {
        // There was nothing: by now the head names another checkpoint, and the next read shows it.
        if (result && position_ == before) return;
        on_read(result);
      });
}

void EdgeStore::on_read(const Result<void>& result) {
  if (result) {
    catch_up();
    step();
  } else {
    failures_.add();
    trouble("this host does not have all that was decided: " + result.error().message);
  }
}

// --- the leader

// Called when this host has adopted all decided writes.
void EdgeStore::begin_to_lead() {
  const uint64_t created = election_.create_revision();
  if (created == 0 || read_from_ != created || ready_ || beginning_) return;
  beginning_ = true;
  writer_.begin(created, head_, head_revision_, [this](const Result<void>& begun) {
    if (!beginning_) return;
    if (!begun) return step_down(begun.error().message);
    if (!head_) return store_first();
    beginning_ = false;
    ready_ = true;
    step();
  });
}

bool EdgeStore::seal_state(std::function<void(Result<SealedState>)> done) {
  auto seal = [&store = host_state_.store(), key = seal_key_]() -> Result<SealedState> {
    SealedState state;
    const Result<WriteSet> all = store.everything(state.position);
    if (!all) return all.error();
    state.sealed.value = seal_write(key, state.position.digest, *all, state.sealed.digest);
    return state;
  };
  return seals_.run(std::move(seal), [done = std::move(done)](std::optional<Result<SealedState>> state) {
    done(state ? *std::move(state) : fail("the state could not be sealed; the log says why"));
  });
}

// etcd has no state of this edge, so this host's state is stored as the first.
void EdgeStore::store_first() {
  const bool begun = seal_state([this](Result<SealedState> state) {
    if (!state) return trouble(state.error().message);
    if (!beginning_) return step_down("the lead was lost");
    store_first(*std::move(state));
  });
  if (!begun) step_down("the state is being sealed already");
}

void EdgeStore::store_first(SealedState state) {
  Head head;
  head.position = {state.position.sequence + 1, state.sealed.digest};
  head.first = head.position.sequence + 1;
  std::string value = std::move(state.sealed.value);
  head.checkpoint = {head.position, value.size()};
  writer_.store_checkpoint(head.position.sequence, std::move(value), [this, head](const Result<void>& stored) {
    if (!stored || !beginning_) return step_down(stored ? "the lead was lost" : stored.error().message);
    writer_.append(head, {}, [this, head](const Result<void>& moved) {
      if (!moved || !beginning_) return step_down(moved ? "the lead was lost" : moved.error().message);
      if (Result<void> kept = host_state_.set_journal_position(head.position); !kept) {
        return trouble(kept.error().message);
      }
      log_info("etcd: it begins with the state of this host, version {}", host_state_.head().version);
      head_ = head;
      position_ = head.position;
      beginning_ = false;
      ready_ = true;
      step();
    });
  });
}

void EdgeStore::refuse(Appended done, const std::string& why) {
  loop_.defer([self = self_, done = std::move(done), why = std::string(kNotDecided) + why] {
    if (*self != nullptr) done(fail(why));
  });
}

void EdgeStore::append(std::shared_ptr<const WriteSet> set, Appended done) {
  TIDEGATE_ASSERT(!sealing_, "one write is decided at a time");
  if (!leads() || !writer_.head()) return refuse(std::move(done), "this control does not lead");
  const std::string previous = writer_.head()->position.digest;
  const bool small = is_small(*set);
  auto seal = [key = seal_key_, previous, set = std::move(set)] {
    Sealed sealed;
    sealed.value = seal_write(key, previous, *set, sealed.digest);
    return sealed;
  };
  if (small) return take_sealed(previous, seal(), std::move(done));
  sealing_ = true;
  const bool begun = seals_.run(std::move(seal), [this, previous, done](std::optional<Sealed> sealed) {
    sealing_ = false;
    take_sealed(previous, std::move(sealed), done);
  });
  TIDEGATE_ASSERT(begun, "one write is sealed at a time");
}

// `previous`: the digest of the write that it follows.
void EdgeStore::take_sealed(const std::string& previous, std::optional<Sealed> sealed, Appended done) {
  if (!sealed) return refuse(std::move(done), "the write could not be sealed; the log says why");
  if (!leads() || !writer_.head() || writer_.head()->position.digest != previous) {
    refuse(std::move(done), "this control does not lead any more");
    return catch_up();
  }
  if (sealed->value.size() > kMaxEtcdRecordBytes) {
    return refuse(std::move(done), "the change is larger than etcd may hold");
  }
  Waiting write;
  write.next = *writer_.head();
  write.next.position = {write.next.position.sequence + 1, std::move(sealed->digest)};
  write.value = std::move(sealed->value);
  write.next.bytes += write.value.size();
  write.done = std::move(done);
  waiting_ = std::move(write);
  if (!writing_) after_write();
}

// Begins the next write.
void EdgeStore::after_write() {
  if (new_checkpoint_) return name_checkpoint();
  if (!waiting_) return;
  Waiting write = *std::exchange(waiting_, std::nullopt);
  // The head may have moved since then, because a checkpoint was named.
  if (writer_.head()) {
    write.next.first = writer_.head()->first;
    write.next.checkpoint = writer_.head()->checkpoint;
  }
  if (!leads()) {
    return refuse(std::move(write.done), "this control does not lead any more");
  }
  const JournalPosition position = write.next.position;
  move_head(write.next, std::move(write.value),
            [this, position, done = std::move(write.done)](const Result<void>& moved) {
              if (!moved) {
                if (told_leads_) step_down(moved.error().message);
                return done(moved.error());
              }
              position_ = position;
              done(position);  // which may append the next write
              checkpoint_if_due();
            });
}

void EdgeStore::move_head(const Head& next, std::string value, std::function<void(Result<void>)> done) {
  TIDEGATE_ASSERT(!writing_, "the head is moved by one write at a time");
  writing_ = true;
  writer_.append(next, std::move(value), [this, next, done = std::move(done)](const Result<void>& moved) {
    writing_ = false;
    if (moved && writer_.head() && *writer_.head() == next) {
      head_ = next;
      head_revision_ = writer_.head_revision();
      head_seen_ = std::max(head_seen_, head_revision_);
    }
    done(moved);
    if (!writing_) after_write();
    catch_up();
  });
}

void EdgeStore::not_stored(const Error& why) {
  const Result<JournalPosition> position = host_state_.store().journal_position();
  if (position) position_ = *position;
  trouble("a write was decided, but this host cannot store it: " + why.message);
}

void EdgeStore::left_position() {
  position_.digest.clear();
  if (ready_ || beginning_) step_down("this host left what was decided");
}

void EdgeStore::checkpoint_if_due() {
  if (checkpointing_ || new_checkpoint_ || !ready_ || !head_) return;
  const uint64_t records = head_->position.sequence - head_->checkpoint.position.sequence;
  const uint64_t bytes = std::max(options_.checkpoint_bytes, head_->checkpoint.bytes);
  if (records < options_.checkpoint_records && head_->bytes < bytes) return;
  checkpointing_ = seal_state([this](Result<SealedState> state) {
    checkpointing_ = false;  // the next write tries again
    if (!state) return log_error("etcd: no checkpoint is made: {}", state.error().message);
    if (ready_) store_checkpoint(*std::move(state));
  });
}

void EdgeStore::store_checkpoint(SealedState state) {
  std::string value = std::move(state.sealed.value);
  if (value.size() > kMaxEtcdRecordBytes) return log_error("etcd: the state is too large for a checkpoint");
  const CheckpointRef reference{std::move(state.position), value.size()};
  checkpointing_ = true;
  writer_.store_checkpoint(reference.position.sequence, std::move(value),
                           [this, reference](const Result<void>& stored) {
                             checkpointing_ = false;
                             if (!stored || !ready_) return;  // the next write tries again
                             new_checkpoint_ = reference;
                             if (!writing_) after_write();
                           });
}

void EdgeStore::name_checkpoint() {
  const CheckpointRef reference = *std::exchange(new_checkpoint_, std::nullopt);
  if (!leads() || !writer_.head()) return after_write();
  Head next = *writer_.head();
  // The journal still continues from the previous checkpoint, for hosts that are a little behind.
  next.first = next.checkpoint.position.sequence + 1;
  next.checkpoint = reference;
  next.bytes = 0;
  move_head(next, {}, [this](const Result<void>& moved) {
    if (moved) return writer_.trim();
    if (told_leads_) step_down(moved.error().message);
  });
}

}  // namespace tidegate::etcd
