// SPDX-License-Identifier: Apache-2.0
#include "control/etcd/journal_writer.h"

#include <fmt/format.h>

#include <utility>

#include "control/host_state.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/log.h"

namespace tidegate::etcd {

namespace {

Error not_decided(const std::string& why) { return fail(std::string(kNotDecided) + why); }
Error not_known(const std::string& why) { return fail(std::string(kNotKnown) + why); }

}  // namespace

JournalWriter::JournalWriter(EventLoop& loop, Client& client, const Keys& keys, std::function<bool()> leads)
    : client_(client), keys_(keys), leads_(std::move(leads)), retry_(loop, [this] {
        for (const std::function<void()>& again : std::exchange(again_, {})) again();
      }) {}

Txn JournalWriter::guarded() const {
  Txn txn;
  txn.compares.push_back({Compare::Of::create_revision, keys_.leader(), create_revision_});
  return txn;
}

void JournalWriter::send(std::shared_ptr<const nlohmann::json> txn, Answered done) {
  client_.call("/v3/kv/txn", *txn, [this, txn, done = std::move(done)](const Result<nlohmann::json>& answer) {
    if (answer) return done(parse_txn(*answer));
    if (!leads_() || create_revision_ == 0) return done(answer.error());
    again_.push_back([this, txn, done] { send(txn, done); });
    if (!retry_.armed()) retry_.arm_after_ms(kRetryMs);
  });
}

std::pair<std::string, std::string> JournalWriter::Pieces::put(uint64_t index) const {
  return {Keys::piece(of, index, count), value.substr(index * kEtcdPieceBytes, kEtcdPieceBytes)};
}

std::shared_ptr<const JournalWriter::Pieces> JournalWriter::pieces_of(std::string key, std::string value) {
  TIDEGATE_ASSERT(!value.empty(), "what is stored is sealed, and so not empty");
  auto pieces = std::make_shared<Pieces>();
  pieces->of = std::move(key);
  pieces->value = std::move(value);
  pieces->count = (pieces->value.size() + kEtcdPieceBytes - 1) / kEtcdPieceBytes;
  return pieces;
}

// Stores all pieces from `index` on.
void JournalWriter::put_pieces(const std::shared_ptr<const Pieces>& pieces, uint64_t index,
                               std::function<void(Result<void>)> done) {
  if (index == pieces->count) return done({});
  Txn txn = guarded();
  txn.puts.push_back(pieces->put(index));
  send(std::make_shared<const nlohmann::json>(txn_request(txn)),
       [this, pieces, index, done = std::move(done)](const Result<TxnAnswer>& answer) {
         if (!answer) return done(not_decided("etcd gives no answer: " + answer.error().message));
         if (!answer->succeeded) return done(not_decided("another control leads now"));
         put_pieces(pieces, index + 1, done);
       });
}

void JournalWriter::begin(uint64_t create_revision, std::optional<Head> head, uint64_t head_revision,
                          std::function<void(Result<void>)> done) {
  create_revision_ = create_revision;
  head_ = std::move(head);
  head_revision_ = head_revision;
  Txn txn = guarded();
  const uint64_t decided = head_ ? head_->position.sequence : 0;
  txn.erases.emplace_back(keys_.journal(decided + 1), keys_.journal_end());
  const uint64_t checkpoint = head_ ? head_->checkpoint.position.sequence : 0;
  txn.erases.emplace_back(keys_.checkpoint(0), keys_.checkpoint(checkpoint));
  txn.erases.emplace_back(keys_.checkpoint(checkpoint + (head_ ? 1 : 0)), keys_.checkpoint_end());
  send(std::make_shared<const nlohmann::json>(txn_request(txn)),
       [this, done = std::move(done)](const Result<TxnAnswer>& answer) {
         if (answer && answer->succeeded) return done({});
         create_revision_ = 0;
         done(answer ? fail("another control leads now") : answer.error());
       });
}

void JournalWriter::append(const Head& next, std::string value, std::function<void(Result<void>)> done) {
  TIDEGATE_ASSERT(writes(), "only a leader appends");
  if (value.empty()) return move_head(next, nullptr, std::move(done));
  const auto pieces = pieces_of(keys_.journal(next.position.sequence), std::move(value));
  if (pieces->count == 1) return move_head(next, pieces, std::move(done));
  put_pieces(pieces, 0, [this, next, done = std::move(done)](const Result<void>& stored) {
    if (!stored) return done(stored);
    if (!writes()) return done(not_decided("this control does not lead any more"));
    move_head(next, nullptr, done);
  });
}

// `piece`: the only piece, which the same transaction stores; null: there is none.
void JournalWriter::move_head(const Head& next, const std::shared_ptr<const Pieces>& piece,
                              std::function<void(Result<void>)> done) {
  Txn txn = guarded();
  txn.compares.push_back({Compare::Of::mod_revision, keys_.head(), head_revision_});
  if (piece) txn.puts.push_back(piece->put(0));
  txn.puts.emplace_back(keys_.head(), encode(next));
  txn.otherwise_get = {keys_.head(), keys_.leader()};
  send(std::make_shared<const nlohmann::json>(txn_request(txn)),
       [this, next, done = std::move(done)](const Result<TxnAnswer>& answer) {
         if (!answer) return done(not_known("etcd gives no answer: " + answer.error().message));
         done(check_moved(next, *answer));
       });
}

// A transaction whose answer was lost is sent again. Then its own effect makes the comparison fail. If the head is
// further ahead, another control leads, and it may have continued from our write.
Result<void> JournalWriter::check_moved(const Head& next, const TxnAnswer& answer) {
  uint64_t moved_at = answer.succeeded ? answer.revision : 0;
  bool went_on = false;
  for (const KeyValue& kv : answer.kvs) {
    if (kv.key != keys_.head()) continue;
    const Result<Head> found = parse_head(kv.value);
    if (found && *found == next) moved_at = kv.mod_revision;
    went_on = went_on || !found || found->position.sequence > next.position.sequence;
  }
  if (moved_at == 0 && went_on) return not_known("another control leads now, and the answer of etcd was late");
  if (moved_at == 0) return not_decided("another control leads now");
  head_ = next;
  head_revision_ = moved_at;
  return {};
}

void JournalWriter::store_checkpoint(uint64_t sequence, std::string value, std::function<void(Result<void>)> done) {
  put_pieces(pieces_of(keys_.checkpoint(sequence), std::move(value)), 0, std::move(done));
}

void JournalWriter::trim() {
  TIDEGATE_ASSERT(head_.has_value(), "there is something to trim");
  Txn txn = guarded();
  txn.erases.emplace_back(keys_.journal(0), keys_.journal(head_->first));
  txn.erases.emplace_back(keys_.checkpoint(0), keys_.checkpoint(head_->checkpoint.position.sequence));
  send(std::make_shared<const nlohmann::json>(txn_request(txn)), [this](const Result<TxnAnswer>& answer) {
    if (!answer || !answer->succeeded) return;  // the trim after the next checkpoint will do it
    client_.call("/v3/kv/compaction", {{"revision", std::to_string(answer->revision)}},
                 [](const Result<nlohmann::json>& compacted) {
                   if (!compacted) log_info("etcd was not compacted: {}", compacted.error().message);
                 });
  });
}

}  // namespace tidegate::etcd
