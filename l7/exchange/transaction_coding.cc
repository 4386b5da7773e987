// SPDX-License-Identifier: Apache-2.0
// How a transaction sends an answer's head and content to the client: as it is, or through the encoder of the coding
// that a policy has chosen. Both ways of an answer (from a backend, from the cache) come by here.
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

// `length`: of the content as it comes. How long it will be compressed, nobody knows yet.
void Transaction::send_answer_head(std::string_view reason, BodyKind body, uint64_t length, bool length_known) {
  CodingUse& use = exchange_.coding;
  const bool coded = use.chosen != Coding::identity;
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

void Transaction::encode_content(std::string_view piece, Encoder::End end) {
  struct ToClient final : Encoder::Sink {
    explicit ToClient(ClientStream& its_client) : client(its_client) {}
    void take(std::string_view bytes) override {
      client.send_piece(bytes);
      sent += bytes.size();
    }
    ClientStream& client;
    uint64_t sent = 0;
  } sink(*client_);
  CodingUse& use = exchange_.coding;
  use.encoder->encode(piece, end, sink);
  use.unflushed = end == Encoder::End::none;
  exchange_.outcome.response_bytes += sink.sent;
  use.counts->bytes_in[static_cast<size_t>(use.chosen)].add(piece.size());
  use.counts->bytes_out[static_cast<size_t>(use.chosen)].add(sink.sent);
}

void Transaction::end_content(const Trailers& trailers) {
  if (exchange_.coding.encoder != nullptr) {
    encode_content({}, Encoder::End::finish);
    exchange_.coding.encoder.reset();
  }
  client_->end_response(trailers);
}

}  // namespace tidegate::l7
