// SPDX-License-Identifier: Apache-2.0
// Copies of requests for a mirror policy: an exchange without a client that sends the copy and throws the answer away.
#include <memory>
#include <utility>

#include "l7/exchange/forwarding.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/policy/mirror.h"
#include "l7/worker.h"

namespace tidegate::l7 {

// The first backend is about to be asked. The copy is of the request that this backend gets.
void Transaction::begin_mirror() {
  const policy::MirrorTerms& terms = *std::exchange(exchange_.mirror_terms, nullptr);
  const bool whole = exchange_.request.body == BodyKind::none && exchange_.request.upgrade.empty() && !exchange_.grpc;
  if (!whole) return terms.runtime->count(policy::MirrorResult::body);
  if (!terms.runtime->enter(terms.most)) return terms.runtime->count(policy::MirrorResult::busy);
  exchange_.mirror = std::make_shared<policy::MirrorPair>(terms.runtime);

  Transaction& other = worker_.take_transaction();
  other.begin_without_client(exchange_);
  Arena& arena = other.arena_;
  Exchange& to = other.exchange_;
  to.pool = exchange_.plan->plan().pools[terms.pool].get();
  to.split_pool = terms.pool;
  to.timing.exchange_deadline_ns = to.timing.started_ns + terms.timeout_ns;
  to.mirrored = true;
  to.mirror = exchange_.mirror;
  copy_head(exchange_.outgoing == nullptr ? exchange_.request : *exchange_.outgoing, arena, to.request);
  to.outgoing_host = arena.copy(exchange_.outgoing_host);
  other.step_ = Step::choose;
  // The other transaction runs in its own turn, because this one has a client to serve first.
  worker_.resume_later(other);
}

// The copy's answer has begun. Only its status counts.
Step Transaction::begin_discard() {
  exchange_.outcome.status = exchange_.response.status;
  backend_->accept_head();
  wait_at_most_ns(silence_ns());
  return Step::discard;
}

// Reads the rest, so that the connection can be used again. If the answer is long, closing the connection is cheaper.
Step Transaction::discard() {
  for (int pieces = 0;; ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      return Step::suspend;
    }
    const std::string_view piece = backend_->next_piece();
    if (piece.empty()) break;
    exchange_.outcome.response_bytes += piece.size();
    if (exchange_.outcome.response_bytes <= kMirrorDiscardBytes) continue;
    release_backend(false);
    return Step::log;
  }
  if (backend_->response_ended()) return Step::log;
  if (backend_->failure() != Failure::none) return fail(backend_->failure());
  if (!expired()) return Step::suspend;
  const Failure over = own_time_over();
  return fail(over != Failure::none ? over : Failure::body_timeout);
}

}  // namespace tidegate::l7
