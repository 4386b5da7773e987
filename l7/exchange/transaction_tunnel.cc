// SPDX-License-Identifier: Apache-2.0
// Requests that ask for another protocol (RFC 9110 §7.8, RFC 8441): which of them may, and what the backend's answer
// means. To the backend all of them are an Upgrade in HTTP/1.
#include <algorithm>

#include "l7/exchange/transaction.h"
#include "l7/exchange/websocket.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

constexpr std::string_view kWebSocket = "websocket";

// A tunnel hides all that follows from routes and rules. So the pool says which protocols it is for. conf refuses
// another HTTP there (h2c), by which a client would ask the backend past the proxy.
bool may_upgrade(const Pool& pool, std::string_view protocol) {
  return http1::equals_ignore_case(protocol, kWebSocket) ||
         std::any_of(pool.upgrades.begin(), pool.upgrades.end(),
                     [&](const std::string& allowed) { return http1::equals_ignore_case(allowed, protocol); });
}

}  // namespace

// False: the request is for nothing but a tunnel, and cannot have one. A request of HTTP/1 goes on without Upgrade.
bool Transaction::take_upgrade() {
  RequestHead& request = exchange_.request;
  const Pool& pool = exchange_.pool->config();
  if (pool.protocol == BackendProtocol::h2 || !may_upgrade(pool, request.upgrade)) {
    request.upgrade = {};
    return !request.extended_connect;
  }
  if (!http1::equals_ignore_case(request.upgrade, kWebSocket)) return true;
  request.upgrade = kWebSocket;
  if (!request.extended_connect) return true;
  // RFC 8441 §5: HTTP/2 has neither field, so one that came is not the client's part of a handshake.
  request.fields.remove_named("sec-websocket-key");
  request.fields.remove_named("sec-websocket-accept");
  RequestIds& ids = worker_.request_ids();
  const std::string key = websocket_key({ids.random(), ids.random()});
  request.fields.add_own("Sec-WebSocket-Key", "sec-websocket-key", arena_.copy(key), FieldKind::other);
  return true;
}

// Looks at the answer to a request with `upgrade`. If it opens a tunnel for an extended CONNECT, it becomes the answer
// to that (RFC 8441 §5: 200).
Failure Transaction::judge_upgrade() {
  const RequestHead& request = exchange_.request;
  ResponseHead& response = exchange_.response;
  if (response.status != 101) {
    // Of an extended CONNECT, 2xx would say that the tunnel stands.
    const bool reads_as_tunnel = request.extended_connect && response.status / 100 == 2;
    return reads_as_tunnel ? Failure::upgrade_refused : Failure::none;
  }
  const Field* const protocol = response.fields.find("upgrade");
  if (!exchange_.attempts.request_sent) {  // what is left of it would be read as the other protocol's
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

void Transaction::begin_tunnel() {
  exchange_.attempts.request_sent = false;  // what the client sends goes on
  exchange_.tunnel = true;
  worker_.stats().tunnels_opened.add();
}

// An answer of our own to an extended CONNECT: 2xx would say that the tunnel stands.
void Transaction::refuse_tunnel_of_ours() {
  if (exchange_.outcome.status / 100 != 2) return;
  exchange_.outcome.failure = Failure::upgrade_refused;
  exchange_.outcome.status = info(Failure::upgrade_refused).status;
  exchange_.answer_body = info(Failure::upgrade_refused).sentence;
}

}  // namespace tidegate::l7
