// SPDX-License-Identifier: Apache-2.0
// OrderFlow: one certificate from an authority, from the directory to the chain (RFC 8555 §7), as a state machine. It
// has no sockets and no clock: each call says what to do next, and the caller comes back with how that went.
//
//   directory ── account ── order ── authorizations ── (publish) ── challenges ── poll ── finalize ── poll ──
//   certificate
//                              └─ all names are authorized already ──────────────────────┘
//
// Every POST needs a nonce (§6.5): that of the last answer, or one that is fetched first. A nonce that the authority
// does not take is replaced by the one that comes with the refusal, kMaxAcmeNonceTries times.
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

// What orders of one account share. It survives them; a failure empties it.
struct Session {
  std::optional<Directory> directory;
  std::string account_url;
  std::string nonce;  // empty: none is there
  uint64_t rejected_nonces = 0;
};

struct Wanted {
  std::string directory_url;
  std::vector<std::string> contact;
  std::string eab_key_id, eab_key;
  std::vector<std::string> names;
  std::string challenge;  // "http-01", "tls-alpn-01", "dns-01"
  // Of the certificate that this order renews (RFC 9773 §5), so that the authority's limits do not count it. Empty:
  // none, or the authority does not know it.
  std::string replaces = {};
};

struct Request {
  enum class Method : uint8_t { get, head, post };
  Method method = Method::get;
  std::string url, body;
  const char* media_type = "application/jose+json";  // of the body
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
    unreachable,  // no answer, or one of 5xx: nothing was refused
    refused,      // the authority says no, or what it says makes no sense
  };
  Kind kind = Kind::refused;
  std::string why;
  uint64_t retry_after_s = 0;  // 0: the authority does not say
};

struct Action {
  enum class Kind : uint8_t {
    send,     // `request`; then on_answer() or on_silence()
    publish,  // `proofs`, until the flow is over; then on_published()
    wait,     // `wait_ms`; then on_waited()
    issued,   // over: `chain_pem`
    failed,   // over: `failure`
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
  // The session and the keys outlive the flow. `certificate_key` is for the new certificate.
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
  uint32_t silences_ = 0;   // of the present request
  uint64_t waited_ms_ = 0;  // for this authorization or the order
  uint64_t next_wait_ms_ = 0;
  std::string order_url_, certificate_url_;
  Order order_;
  size_t at_ = 0;  // in order_.authorizations, then in pending_
  std::vector<Pending> pending_;
  AcmeProofs proofs_;
};

}  // namespace tidegate::acme
