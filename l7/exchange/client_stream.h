// SPDX-License-Identifier: Apache-2.0
// ClientStream: what a transaction needs of the client's side of one exchange, whether it is a whole HTTP/1 connection
// or one HTTP/2 stream. The transaction asks the stream for everything. The stream only calls Transaction::resume()
// when there is progress. Then the transaction asks again.
//
// Threads: the worker's.
#pragma once

#include <cstdint>
#include <string_view>

#include "conf/model/common.h"
#include "core/ip.h"
#include "core/tls_clients.h"
#include "l7/exchange/failure.h"
#include "l7/exchange/patience.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// Facts about the connection of a request. Views live as long as the connection.
struct ClientFacts {
  Endpoint peer;
  std::string_view peer_text;  // only the address, as text
  uint64_t connection = 0;     // number of the connection in this process, from 1; 0: not a client's connection
  uint32_t listener = kNone;   // index in the Model of the request's plan; kNone: removed since
  std::string_view listener_name;
  uint16_t port = 0;                      // the port that the client connected to
  bool peer_trusted = false;              // in trusted_proxies
  std::string_view tls_version;           // empty: plain text
  uint32_t listener_number = 0;           // of NameIds, for records of requests
  const Endpoint* destination = nullptr;  // the address that the client connected to; null: requests are not remembered
  bool tls_resumed = false;
  uint64_t handshake_ns = 0;  // duration of the TLS handshake, for the connection's first request; 0 for later ones
  // the certificate that the client has shown and the listener accepts; null: none
  const PeerCertificate* certificate = nullptr;
  // If not `none`: since the handshake the listener's rules for clients have changed, and they do not accept this
  // client.
  ClientCertificateFault certificate_fault = ClientCertificateFault::none;
  bool merge_slashes = true;            // routes are matched with "//" treated as "/"
  bool underscores_in_headers = false;  // keeps fields that an application may confuse with fields that the proxy sets
  bool via = true;                      // Via is written
  uint64_t max_body_bytes = 0;
  PatienceTerms patience;    // for a client that sends or takes a body
  uint64_t exchange_ns = 0;  // the longest time of a whole exchange; 0: no limit
};

// The head of an answer. The stream adds the fields of framing and of the connection; all others are final.
struct AnswerHead {
  uint16_t status;
  std::string_view reason;  // for HTTP/1; empty: the registered phrase
  const FieldList& fields;
  BodyKind body = BodyKind::none;
  uint64_t content_length = 0;
  bool content_length_known = false;
};

class ClientStream {
 public:
  // --- the request's body
  // The next bytes, or nothing if there are none now. The view is valid until the next call, which counts them as
  // taken.
  virtual std::string_view next_piece() = 0;
  virtual bool body_ended() const = 0;
  // bad_request for broken framing, client_gone if the client left in the middle of it; otherwise none.
  virtual Failure body_failure() const = 0;
  // After bad_request: the name of the parser's fault, for the log.
  virtual std::string_view body_fault() const { return {}; }
  // Trailers of the request, after body_ended(). They live as long as the transaction's arena.
  virtual const Trailers& trailers() const = 0;
  // The transaction wants the body: answers Expect: 100-continue (RFC 9110 §10.1.1). May be called several times.
  virtual void want_body() = 0;

  // --- the answer
  // Sends an interim answer (1xx, RFC 9110 §15.2). It is dropped if the client speaks HTTP/1.0 or does not read.
  virtual void send_interim(const ResponseHead& interim) = 0;
  // Gathers the head.
  virtual void send_head(const AnswerHead& head) = 0;
  // True if less than a block waits for the client, so the next piece may be sent. A piece is at most one block.
  virtual bool ready_for_piece() = 0;
  virtual void send_piece(std::string_view piece) = 0;
  // `trailers` are sent if the protocol, the framing of the body and the client allow it.
  virtual void end_response(const Trailers& trailers = {}) = 0;
  // The answer cannot be completed. The client must notice it (close, or RST_STREAM).
  virtual void abort_response() = 0;
  virtual void flush() = 0;

  // The transaction has released the stream, and the stream must not use it again. This is the last call of an
  // exchange.
  virtual void on_transaction_over() = 0;

  virtual const ClientFacts& facts() const = 0;
  // The host for redirects of a request without Host: the listener's server_name, or the address that the client
  // connected to.
  virtual std::string server_name() const = 0;
  // The address to which the client connected: our own address, or the one in a PROXY header.
  virtual Endpoint destination() const = 0;

 protected:
  ~ClientStream() = default;
};

}  // namespace tidegate::l7
