// SPDX-License-Identifier: Apache-2.0
// OrderFlow: one certificate from an authority, from the directory to the chain (RFC 8555 §7), as a state machine. It
// has no sockets and no clock: each call says what to do next, and the caller reports the result.
//
//   directory ── account ── order ── authorizations ── (publish) ── challenges ── poll ── finalize ── poll ──
//   certificate
//                              └─ all names are authorized already ──────────────────────┘
//
// Every POST needs a nonce (§6.5): the one in the last answer, or one that is fetched first. If the authority refuses a
// nonce, the one in the refusal is used, up to kMaxAcmeNonceTries times.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/live_state.h"
#include "control/acme/messages.h"
#include "core/result.h"
#include "core/signing_key.h"

namespace tidegate::acme {

// The state that the orders of one account share. It outlives an order. A failure clears it.
struct Session {
  std::optional<Directory> directory;
  std::string account_url;
  std::string nonce;  // empty: there is none
  uint64_t rejected_nonces = 0;
};

struct Wanted {
  std::string directory_url;
  std::vector<std::string> contact;
  std::string eab_key_id, eab_key;
  std::vector<std::string> names;
  std::string challenge;  // "http-01", "tls-alpn-01", "dns-01"
  // The certificate that this order renews (RFC 9773 §5). The authority's limits do not count a renewal. Empty: the
  // order renews none, or the authority does not know the certificate.
  std::string replaces = {};
};

struct Request {
  enum class Method : uint8_t { get, head, post };
  Method method = Method::get;
  std::string url, body;
  const char* media_type = "application/jose+json";  // media type of the body
};

struct Answer {
  int status = 0;
  std::string body;
  std::string nonce, location;  // header fields; empty: absent
  std::optional<uint64_t> retry_after_s;
};

// Why there is no certificate.
struct Failure {
  enum class Kind : uint8_t {
    unreachable,  // no answer, or a 5xx: nothing was refused
    refused,      // the authority refuses, or its answer is invalid
  };
  Kind kind = Kind::refused;
  std::string why;
  uint64_t retry_after_s = 0;  // 0: the authority does not say it
};

struct Action {
  enum class Kind : uint8_t {
    send,     // send `request`; then call on_answer() or on_silence()
    publish,  // show `proofs` until the flow is over; then call on_published()
    wait,     // wait for `wait_ms`; then call on_waited()
    issued,   // over: `chain_pem` is set
    failed,   // over: `failure` is set
  };
  Kind kind = Kind::failed;
  Request request;
  AcmeProofs proofs;
  uint64_t wait_ms = 0;
  std::string chain_pem;
  Failure failure;
};

class OrderFlow {
 public:
  // The session and the keys must outlive the flow. `certificate_key` is for the new certificate.
  OrderFlow(Session& session, const SigningKey& account, const SigningKey& certificate_key, Wanted wanted);

  Action begin();
  Action on_answer(const Answer& answer);
  Action on_silence(const std::string& why);
  Action on_published();
  Action on_waited();

 private:
  enum class State : uint8_t {
    directory,
    account,
    order,
    authorizations,
    publish,
    challenges,
    poll_authorizations,
    finalize,
    poll_order,
    certificate,
    over
  };

  Action go(State state);
  Action ask();
  Action post(const std::string& url, const std::string& payload);
  Action wait(const std::optional<uint64_t>& retry_after_s);
  Action repeat_later(const std::string& why);
  Action fail_with(Failure::Kind kind, std::string why, uint64_t retry_after_s = 0);
  Action take_problem(const Answer& answer);
  Action take(const Answer& answer);
  Action take_account(const Answer& answer);
  Action take_order(const Answer& answer);
  Action take_authorization(const Answer& answer);
  Action take_polled_authorization(const Answer& answer);
  Action take_polled_order(const Answer& answer);
  Action first_challenge();
  Result<std::string> account_payload() const;
  const Challenge* chosen(const Authorization& authorization) const;
  void add_proof(const Authorization& authorization, const Challenge& challenge);

  struct Pending {
    std::string authorization_url, challenge_url, name;
  };

  Session& session_;
  const SigningKey& account_;
  const SigningKey& certificate_key_;
  Wanted wanted_;
  State state_ = State::directory;
  bool fetches_nonce_ = false;
  uint32_t nonce_tries_ = 0;
  uint32_t silences_ = 0;   // lost answers to the present request
  uint64_t waited_ms_ = 0;  // for this authorization or the order
  uint64_t next_wait_ms_ = 0;
  std::string order_url_, certificate_url_;
  Order order_;
  size_t at_ = 0;  // index in order_.authorizations, later in pending_
  std::vector<Pending> pending_;
  AcmeProofs proofs_;
};

}  // namespace tidegate::acme
