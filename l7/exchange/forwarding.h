// SPDX-License-Identifier: Apache-2.0
// Forwarding: the fields that the proxy writes into messages that it passes on. These are the identity of the client
// (X-Forwarded-*), its own name (Via, RFC 9110 §7.6.3), the request's id, and the route's edits, which have precedence.
// Pure: heads and facts in, text or fields out, all in the arena.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "l7/exchange/client_stream.h"
#include "l7/route/router.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

using FieldEdits = std::vector<std::pair<std::string, std::string>>;  // an empty value removes the field

// The client's address as far as it can be trusted: the peer, or, behind trusted proxies, the last address in
// X-Forwarded-For that is not one of theirs (core/forwarded_for.h).
std::string_view client_address(const RequestHead& request, const ClientFacts& facts,
                                const std::vector<Cidr>& trusted_proxies, Arena& arena, IpAddress* named = nullptr);

// "http" or "https": how the client asked, as far as it can be trusted. It is the scheme of our connection, or the one
// that a trusted proxy names.
std::string_view client_scheme(const RequestHead& request, const ClientFacts& facts);

// A request to a backend, in no protocol yet. Borrowed for a call.
struct BackendRequest {
  const RequestHead& request;
  const ClientFacts& facts;
  const FieldEdits& edits;
  std::string_view via_node;  // this node's name; empty: Via is not written
  std::string_view request_id;
  // Host for a request that has none (HTTP/1.0).
  std::string_view fallback_host = {};
  std::string_view host = {};  // replaces the client's host; empty: the client's host is used
  // A fetch for the cache has these instead of the client's own If-* and Range. What a trusted proxy says about the
  // target is then passed on only as far as the cache's key has it (client_scheme).
  const FieldList* conditions = nullptr;
  std::string_view grpc_timeout = {};  // replaces the client's field; empty: the client's field is passed on
  // A field that says how much time is left: its name as spelt, its name in lower case, and its value. The client's own
  // field is never passed on. Without a value no field is sent.
  std::string_view deadline_name = {}, deadline_lower_name = {}, deadline = {};
  // Whether the client's own Authorization is passed on.
  bool authorization = true;
  bool cookie = true;
  // counts dropped fields: applications may confuse them with fields that the proxy sets
  uint64_t* imitations = nullptr;
};
// The whole head of the request in HTTP/1.1, with the final empty line.
std::string_view compose_http1_head(const BackendRequest& request, Arena& arena);
// Makes the request's fields for an HTTP/2 header block, with the pseudo-header fields first (RFC 9113 §8.3.1). Names
// are in lower case. `scheme`: of the connection to the backend. A request with `upgrade` is a GET without a body, and
// becomes an extended CONNECT (RFC 8441).
FieldSpan compose_http2_fields(const BackendRequest& request, std::string_view scheme, Arena& arena);

// Whether the request towards the backend carries its body chunked.
inline bool sends_chunked(const RequestHead& request) { return request.body == BodyKind::unknown; }

// The head of a request without a body, into another arena.
void copy_head(const RequestHead& from, Arena& arena, RequestHead& to);

// True if the request's method gives content a meaning. Such a request needs Content-Length: 0 if it has no content
// (RFC 9110 §8.6).
bool has_meaning_for_content(const RequestHead& request);

// How many entries of this node are in the request's Via.
size_t own_via_entries(const RequestHead& request, std::string_view node);

// Applies a route's edits to the fields of an answer.
void apply_edits(const FieldEdits& edits, FieldList& fields, Arena& arena);

// A route's redirect with these replaced: {host}, {authority} (host and port as the client wrote them), {path} (with
// the query), {rest} (`rest`), {query} (with its '?', or empty) and the path's parameters. `server` is used if the
// request has no Host.
struct ServerAuthority {
  std::string_view name;
  uint16_t port = 0;  // 0: the default of the scheme
};
std::string_view expand_redirect(std::string_view pattern, const RequestHead& request,
                                 const RouteParameters& parameters, std::string_view rest,
                                 const ServerAuthority& server, Arena& arena);

}  // namespace tidegate::l7
