// SPDX-License-Identifier: Apache-2.0
#include "control/etcd/journal_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "control/limits.h"
#include "core/assert.h"

namespace tidegate::etcd {

void JournalReader::read(std::string from, std::string end, OnValue on_value, std::function<void(Result<void>)> done) {
  TIDEGATE_ASSERT(!under_way_, "one read at a time");
  under_way_ = std::make_unique<Read>();
  under_way_->from = std::move(from);
  under_way_->end = std::move(end);
  under_way_->on_value = std::move(on_value);
  under_way_->done = std::move(done);
  ask();
}

void JournalReader::ask() {
  client_.call("/v3/kv/range", range_request(under_way_->from, under_way_->end, under_way_->at_once),
               [this](const Result<nlohmann::json>& answer) {
                 if (!answer) return finish(answer.error());
                 Result<Range> range = parse_range(*answer);
                 if (!range) return finish(range.error());
                 under_way_->range = *std::move(range);
                 under_way_->next = 0;
                 under_way_->range_bytes = 0;
                 for (const KeyValue& kv : under_way_->range.kvs) under_way_->range_bytes += kv.value.size();
                 take();
               });
}

// Takes the pieces of the last answer from the next one on.
void JournalReader::take() {
  Read& read = *under_way_;
  while (read.next < read.range.kvs.size()) {
    const Result<bool> whole = take_piece(read, read.range.kvs[read.next++]);
    if (!whole) return finish(whole.error());
    if (!*whole) continue;
    read.bytes = 0;
    return read.on_value(read.last.sequence, std::exchange(read.pieces, {}), [this](const Result<void>& taken) {
      if (!taken) return finish(taken);
      take();
    });
  }
  if (!read.range.more || read.range.kvs.empty()) {
    return finish(read.pieces.empty() ? Result<void>() : fail("pieces are missing in etcd"));
  }
  const bool small = read.range_bytes < kEtcdPieceBytes / kEtcdPiecesAtOnce * read.at_once;
  read.at_once = small ? std::min(read.at_once * 2, kEtcdPiecesAtOnce) : kLargePiecesAtOnce;
  read.from = read.range.kvs.back().key + std::string(1, '\0');
  ask();
}

// Returns whether its value is whole with this piece.
Result<bool> JournalReader::take_piece(Read& read, KeyValue& kv) {
  const std::optional<Keys::Piece> piece = keys_.parse_piece(kv.key);
  if (!piece) return fail("etcd holds a key that is not of this release: " + kv.key);
  const bool continues = !read.pieces.empty() && piece->sequence == read.last.sequence &&
                         piece->count == read.last.count && piece->index == read.last.index + 1;
  if (read.pieces.empty() ? piece->index != 0 : !continues) {
    return fail(fmt::format("pieces of {} are missing in etcd", piece->sequence));
  }
  if (kv.value.empty() || read.bytes + kv.value.size() > kMaxEtcdRecordBytes) {
    return fail(fmt::format("{} in etcd is empty, or longer than may be", piece->sequence));
  }
  read.bytes += kv.value.size();
  read.pieces.push_back(std::move(kv.value));
  read.last = *piece;
  return piece->index + 1 == piece->count;
}

void JournalReader::finish(Result<void> result) {
  const std::unique_ptr<Read> ended = std::move(under_way_);
  ended->done(std::move(result));
}

}  // namespace tidegate::etcd
