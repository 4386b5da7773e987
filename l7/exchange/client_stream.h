// SPDX-License-Identifier: Apache-2.0
// ClientStream: what a transaction needs of the client's side of one exchange, whether it is a whole HTTP/1 connection
// or one HTTP/2 stream. Everything is asked for, nothing is pushed: the stream calls Transaction::resume() when
// something has moved, and the transaction looks.
//
// Threads: the worker's.
#pragma once

#include <cstdint>
#include <string_view>

#include "conf/model.h"
#include "core/ip.h"
#include "core/tls_clients.h"
#include "l7/exchange/failure.h"
#include "l7/exchange/patience.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// Of the connection that a request came on. Views live as long as the connection.
struct ClientFacts {
  Endpoint peer;
  std::string_view peer_text;  // the address alone
  uint64_t connection = 0;     // its number in this process, from 1; 0: not a client's
  uint32_t listener = kNone;   // in the Model of the request's plan; kNone: removed since
  std::string_view listener_name;
  uint16_t port = 0;                      // that the client connected to
  bool peer_trusted = false;              // in trusted_proxies
  std::string_view tls_version;           // empty: plain
  uint32_t listener_number = 0;           // of NameIds, for records of requests
  const Endpoint* destination = nullptr;  // where the client connected to; null: requests are not remembered
  bool tls_resumed = false;
  uint64_t handshake_ns = 0;  // how long TLS took, for the connection's first request; 0 for later ones
  const PeerCertificate* certificate = nullptr;  // that the client has shown, and the listener accepts; null: none
  // Not `none`: the listener's rules for clients are other ones since the handshake, and do not accept this client.
  ClientCertificateFault certificate_fault = ClientCertificateFault::none;
  bool merge_slashes = true;            // routes are matched with "//" read as "/"
  bool underscores_in_headers = false;  // fields pass that are read as ones which the proxy sets
  bool via = true;                      // Via is written
  uint64_t max_body_bytes = 0;
  PatienceTerms patience;    // with a client that sends or takes a body
  uint64_t exchange_ns = 0;  // longest whole exchange; 0: any
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
  // The next bytes, or nothing now. The view is good until the next call; what was given counts as taken then.
  virtual std::string_view next_piece() = 0;
  virtual bool body_ended() const = 0;
  // bad_request for broken framing, client_gone when the client left amid it; none while all is well.
  virtual Failure body_failure() const = 0;
  // If it is bad_request: the name of the parser's fault, for the log.
  virtual std::string_view body_fault() const { return {}; }
  // Of the request, after body_ended(). They live as long as the transaction's arena.
  virtual const Trailers& trailers() const = 0;
  // The body is wanted: answers Expect: 100-continue (RFC 9110 §10.1.1). May be called often.
  virtual void want_body() = 0;

  // --- the answer
  // Sends an interim answer (1xx, RFC 9110 §15.2). It is dropped if the client speaks HTTP/1.0 or does not read.
  virtual void send_interim(const ResponseHead& interim) = 0;
  // Gathers the head.
  virtual void send_head(const AnswerHead& head) = 0;
  // Nothing waits for the client: the next piece may be sent. Pieces are at most a block.
  virtual bool ready_for_piece() = 0;
  virtual void send_piece(std::string_view piece) = 0;
  // `trailers` are sent where the protocol, the framing of the body and the client allow it.
  virtual void end_response(const Trailers& trailers = {}) = 0;
  // The answer cannot be completed: the client must see that (close, or RST_STREAM).
  virtual void abort_response() = 0;
  virtual void flush() = 0;

  // The transaction has let go of the stream and is not to be touched again. The last call of an exchange.
  virtual void on_transaction_over() = 0;

  virtual const ClientFacts& facts() const = 0;
  // The host for redirects of a request without Host: the listener's server_name, or the address connected to.
  virtual std::string server_name() const = 0;
  // Where the client connected to: our own address, or what a PROXY header says.
  virtual Endpoint destination() const = 0;

 protected:
  ~ClientStream() = default;
};

}  // namespace tidegate::l7
