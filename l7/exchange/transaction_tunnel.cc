// SPDX-License-Identifier: Apache-2.0
// Requests that ask for another protocol (RFC 9110 §7.8, RFC 8441): which of them may, and what the backend's answer
// means. The client asks by Upgrade in HTTP/1 or by extended CONNECT in HTTP/2. The proxy asks the backend in one of
// these two ways, independent of the client's. All four combinations carry the same bytes.
#include <algorithm>

#include "conf/model/pool.h"
#include "core/assert.h"
#include "l7/exchange/transaction.h"
#include "l7/exchange/websocket.h"
#include "l7/policy/credentials.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

constexpr std::string_view kWebSocket = "websocket";

// Routes and rules cannot see what follows in a tunnel. So the pool says which protocols are allowed. conf refuses HTTP
// itself there (h2c), because it would let a client bypass the proxy's rules.
bool may_upgrade(const Pool& pool, std::string_view protocol) {
  return http1::equals_ignore_case(protocol, kWebSocket) ||
         std::any_of(pool.upgrades.begin(), pool.upgrades.end(),
                     [&](const std::string& allowed) { return http1::equals_ignore_case(allowed, protocol); });
}

// An extended CONNECT has neither a method of its own nor content.
bool fits_connect(const RequestHead& request) { return request.method == "GET" && request.body == BodyKind::none; }

// RFC 6455 §4.2.1: one value, of 16 bytes in base64.
bool has_websocket_key(const FieldList& fields, Arena& arena) {
  const Field* found = nullptr;
  for (const Field& field : fields) {
    if (field.name != "sec-websocket-key") continue;
    if (found != nullptr) return false;
    found = &field;
  }
  const std::optional<std::string_view> key =
      found == nullptr ? std::nullopt : policy::decode_base64(found->value, arena);
  return key && key->size() == 16;
}

}  // namespace

// none: the request goes on. It goes on without `upgrade` if it is an HTTP/1 request that cannot have the tunnel.
Failure Transaction::take_upgrade() {
  RequestHead& request = exchange_.request;
  const Pool& pool = exchange_.pool->config();
  if (!may_upgrade(pool, request.upgrade)) {
    request.upgrade = {};
    return request.extended_connect ? Failure::upgrade_refused : Failure::none;
  }
  if (!http1::equals_ignore_case(request.upgrade, kWebSocket)) return Failure::none;
  request.upgrade = kWebSocket;
  if (!request.extended_connect) {
    // A backend that speaks HTTP/2 never sees the key, so the proxy must answer it.
    const bool judged_here = pool.protocol != BackendProtocol::h1;
    return judged_here && !has_websocket_key(request.fields, arena_) ? Failure::bad_request : Failure::none;
  }
  // RFC 8441 §5: in HTTP/2 neither field is part of a handshake.
  request.fields.remove_named("sec-websocket-key");
  request.fields.remove_named("sec-websocket-accept");
  if (pool.protocol == BackendProtocol::h2) return Failure::none;
  RequestIds& ids = worker_.request_ids();
  const std::string key = websocket_key({ids.random(), ids.random()});
  request.fields.add_own("Sec-WebSocket-Key", "sec-websocket-key", arena_.copy(key), FieldKind::other);
  return Failure::none;
}

Step Transaction::refuse_handshake() {
  const Step next = fail(Failure::bad_request);
  failure_detail_ = "bad_websocket_key";
  return next;
}

bool Transaction::tunnels_by_http1_alone(const PoolMember& member) const {
  const RequestHead& request = exchange_.request;
  if (request.upgrade.empty() || exchange_.pool->config().protocol != BackendProtocol::automatic) return false;
  return !fits_connect(request) || worker_.backends().refuses_http2_tunnels(*member.runtime);
}

// The connection is there. Returns nothing if the request can begin on it.
std::optional<Step> Transaction::choose_tunnel() {
  RequestHead& request = exchange_.request;
  switch (backend_->tunnels()) {
    case Tunnels::by_upgrade:
      return std::nullopt;
    case Tunnels::unknown:
      return await_connection();
    case Tunnels::by_connect:
      if (fits_connect(request)) return std::nullopt;
      break;
    case Tunnels::none:
      if (exchange_.pool->config().protocol == BackendProtocol::automatic) {  // tunnels_by_http1_alone() holds now
        choose_again();
        return Step::choose;
      }
      if (request.extended_connect || request.upgrade == kWebSocket)
        return attempt_failed(Failure::tunnels_unsupported);
      break;
  }
  request.upgrade = {};  // RFC 9110 §7.8: an Upgrade may be ignored
  return std::nullopt;
}

// Checks the answer to a request with `upgrade`. If it opens a tunnel for an extended CONNECT, it becomes a 200 (RFC
// 8441 §5).
Failure Transaction::judge_upgrade() {
  if (backend_->tunnels() != Tunnels::by_upgrade) {
    judge_connect();
    return Failure::none;
  }
  const RequestHead& request = exchange_.request;
  ResponseHead& response = exchange_.response;
  if (response.status != 101) {
    // For an extended CONNECT, 2xx would say that the tunnel is open.
    const bool reads_as_tunnel = request.extended_connect && response.status / 100 == 2;
    return reads_as_tunnel ? Failure::upgrade_refused : Failure::none;
  }
  const Field* const protocol = response.fields.find("upgrade");
  if (!exchange_.attempts.request_sent) {  // the other protocol's parser would read the rest of the body
    failure_detail_ = "101 before the end of the request";
    return Failure::bad_response;
  }
  if (protocol == nullptr ? request.extended_connect : !http1::equals_ignore_case(protocol->value, request.upgrade)) {
    failure_detail_ = "101 for another protocol";
    return Failure::bad_response;
  }
  if (!request.extended_connect) return Failure::none;
  if (request.upgrade == kWebSocket) {
    const Field* const key = request.fields.find("sec-websocket-key");
    const Field* const accept = response.fields.find("sec-websocket-accept");
    if (key == nullptr || accept == nullptr || accept->value != websocket_accept(key->value)) {
      failure_detail_ = "wrong Sec-WebSocket-Accept";
      return Failure::bad_response;
    }
    response.fields.remove_named("sec-websocket-accept");
  }
  response.fields.remove_named("upgrade");
  response.status = 200;
  response.reason = {};
  return Failure::none;
}

// Checks the answer to our own extended CONNECT. If it opens the tunnel, it becomes the answer that the client expects.
// Other answers are passed on unchanged.
void Transaction::judge_connect() {
  const RequestHead& request = exchange_.request;
  ResponseHead& response = exchange_.response;
  if (response.body != BodyKind::tunnel) return;
  response.fields.remove_named("sec-websocket-accept");
  response.status = request.extended_connect ? 200 : 101;
  if (request.extended_connect) return;
  response.fields.add_own("Upgrade", "upgrade", request.upgrade, FieldKind::hop_by_hop);
  if (request.upgrade != kWebSocket) return;
  const Field* const key = request.fields.find("sec-websocket-key");
  TIDEGATE_ASSERT(key != nullptr, "a handshake without a key was refused");
  response.fields.add_own("Sec-WebSocket-Accept", "sec-websocket-accept", arena_.copy(websocket_accept(key->value)),
                          FieldKind::other);
}

void Transaction::begin_tunnel() {
  exchange_.attempts.request_sent = false;  // the client continues to send
  exchange_.tunnel = true;
  worker_.stats().tunnels_opened.add();
}

// For our own answer to an extended CONNECT: 2xx would say that the tunnel is open.
void Transaction::refuse_tunnel_of_ours() {
  if (exchange_.outcome.status / 100 != 2) return;
  exchange_.outcome.failure = Failure::upgrade_refused;
  exchange_.outcome.status = info(Failure::upgrade_refused).status;
  exchange_.answer_body = info(Failure::upgrade_refused).sentence;
}

}  // namespace tidegate::l7
