// SPDX-License-Identifier: Apache-2.0
// How a transaction sends an answer's head and content to the client: unchanged, or through the encoder of the coding
// that a policy has chosen. Answers from a backend and from the cache both use this file.
#include "cache/limits.h"
#include "l7/exchange/transaction.h"
#include "l7/policy/compress.h"
#include "l7/worker.h"

namespace tidegate::l7 {

void Transaction::offer_content(BodyKind body, std::optional<uint64_t> length) {
  CodingUse& use = exchange_.coding;
  if (exchange_.policies.chain == nullptr || body == BodyKind::tunnel) return;
  use.offered = true;
  use.room = worker_.encoders().has_room();
  use.length = length;
  // An answer to GET that has no body has the length 0, whether it says so or not.
  if (body == BodyKind::none && !exchange_.request.is_head()) use.length = 0;
}

// `length`: of the content before coding. The compressed length is not known yet.
void Transaction::send_answer_head(std::string_view reason, BodyKind body, uint64_t length, bool length_known) {
  CodingUse& use = exchange_.coding;
  const bool coded = use.chosen != Coding::identity && !use.stored;
  if (coded && body != BodyKind::none) {
    use.encoder = worker_.encoders().lease(use.chosen);
    body = BodyKind::unknown;
  }
  keep_logged_fields();
  client_->send_head({.status = exchange_.outcome.status,
                      .reason = reason,
                      .fields = exchange_.response.fields,
                      .body = body,
                      .content_length = coded ? 0 : length,
                      .content_length_known = length_known && !coded});
  exchange_.head_sent = true;
}

// An encoder that has finished goes back to the worker.
void Transaction::encode_content(std::string_view piece, Encoder::End end) {
  struct ToClient final : Encoder::Sink {
    ToClient(Transaction& owner, ClientStream& its_client) : transaction(owner), client(its_client) {}
    void take(std::string_view bytes) override {
      client.send_piece(bytes);
      sent += bytes.size();
      if (transaction.exchange_.coding.kept != nullptr) transaction.keep_coded(bytes);
    }
    Transaction& transaction;
    ClientStream& client;
    uint64_t sent = 0;
  } sink(*this, *client_);
  CodingUse& use = exchange_.coding;
  use.encoder->encode(piece, end, sink);
  use.unflushed = end == Encoder::End::none;
  exchange_.outcome.response_bytes += sink.sent;
  use.counts->bytes_in[static_cast<size_t>(use.chosen)].add(piece.size());
  use.counts->bytes_out[static_cast<size_t>(use.chosen)].add(sink.sent);
  if (end == Encoder::End::finish) use.encoder.reset();
}

void Transaction::end_content(const Trailers& trailers) {
  if (exchange_.coding.encoder != nullptr) encode_content({}, Encoder::End::finish);
  if (exchange_.coding.kept != nullptr) end_keeping(true);
  client_->end_response(trailers);
}

// --- compressed bodies in the cache

// The answer is from the cache, and a policy has chosen a coding for it. Returns true if the cache has the body in that
// coding, which the client then gets. Otherwise the compressed bytes are kept for the next request.
bool Transaction::take_stored_coding() {
  CodingUse& use = exchange_.coding;
  const cache::LookupOutcome outcome = exchange_.cache.outcome;
  const bool whole_hit = outcome == cache::LookupOutcome::hit || outcome == cache::LookupOutcome::stale;
  if (use.chosen == Coding::identity || !use.store || !whole_hit) return false;
  cache::Answer& answer = *exchange_.cache.stored;
  if (std::optional<cache::CodedBody> coded = worker_.cache()->find_coded(*answer.head, use.chosen, worker_.loop())) {
    if (!exchange_.request.is_head()) answer.body = std::move(coded->body);
    answer.content_length = coded->bytes;
    use.stored = true;
    return true;
  }
  if (!exchange_.request.is_head()) begin_keeping();
  return false;
}

// Takes room for the whole body from the worker's budget at once. So several growing bodies do not block each other.
void Transaction::begin_keeping() {
  if (worker_.memory().take(cache::kCodedBytes)) exchange_.coding.kept = std::make_unique<std::string>();
}

void Transaction::keep_coded(std::string_view piece) {
  std::string& kept = *exchange_.coding.kept;
  if (kept.size() + piece.size() <= cache::kCodedBytes) {
    kept.append(piece);
  } else {
    end_keeping(false);
  }
}

// `whole`: the whole body was compressed.
void Transaction::end_keeping(bool whole) {
  const std::unique_ptr<std::string> kept = std::move(exchange_.coding.kept);
  worker_.memory().give_back(cache::kCodedBytes);
  if (!whole) return;
  kept->shrink_to_fit();
  worker_.cache()->store_coded(*exchange_.cache.stored->head, exchange_.coding.chosen, std::move(*kept));
}

}  // namespace tidegate::l7
