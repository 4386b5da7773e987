// SPDX-License-Identifier: Apache-2.0
#include "control/etcd/journal_reader.h"

#include <fmt/format.h>

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
  client_.call("/v3/kv/range", range_request(under_way_->from, under_way_->end, kEtcdPiecesAtOnce),
               [this](const Result<nlohmann::json>& answer) {
                 if (!answer) return finish(answer.error());
                 const Result<Range> range = parse_range(*answer);
                 if (!range) return finish(range.error());
                 if (Result<void> taken = take(*under_way_, *range); !taken) return finish(taken);
                 if (!range->more || range->kvs.empty()) {
                   return finish(under_way_->bytes.empty() ? Result<void>() : fail("pieces are missing in etcd"));
                 }
                 under_way_->from = range->kvs.back().key + std::string(1, '\0');
                 ask();
               });
}

Result<void> JournalReader::take(Read& read, const Range& range) {
  for (const KeyValue& kv : range.kvs) {
    const std::optional<Keys::Piece> piece = keys_.parse_piece(kv.key);
    if (!piece) return fail("etcd holds a key that is not of this release: " + kv.key);
    const bool continues = !read.bytes.empty() && piece->sequence == read.last.sequence &&
                           piece->count == read.last.count && piece->index == read.last.index + 1;
    if (read.bytes.empty() ? piece->index != 0 : !continues) {
      return fail(fmt::format("pieces of {} are missing in etcd", piece->sequence));
    }
    if (kv.value.empty() || read.bytes.size() + kv.value.size() > kMaxEtcdRecordBytes) {
      return fail(fmt::format("{} in etcd is empty, or longer than may be", piece->sequence));
    }
    read.bytes += kv.value;
    read.last = *piece;
    if (piece->index + 1 < piece->count) continue;
    if (Result<void> taken = read.on_value(piece->sequence, std::exchange(read.bytes, {})); !taken) return taken;
  }
  return {};
}

void JournalReader::finish(Result<void> result) {
  const std::unique_ptr<Read> ended = std::move(under_way_);
  ended->done(std::move(result));
}

}  // namespace tidegate::etcd
