// SPDX-License-Identifier: Apache-2.0
// Client certificates at a TLS server: which ones it trusts, why it refuses one, and what one says about its client.
//
// A server context with TlsClientRules asks each client for a certificate and checks its chain, its dates, its purpose
// (RFC 5280 §4.2.1.12) and, where there are lists, whether it or one of its authorities is revoked. Session tickets are
// bound to a digest of the rules: a ticket that was issued under others, or without any, leads to a full handshake.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tidegate {

class TlsContext;
class TlsStream;

struct TlsClientRules {
  std::string authorities_pem;  // each certificate in it is trusted, also one that is not a root
  std::string revoked_pem;      // certificate revocation lists; empty: none are looked at
  bool optional = false;        // a client without a certificate may come; one with a bad certificate may not
};

// An Error says what is wrong with the rules, as text for a fault. Otherwise returns when the first of the revocation
// lists ends (epoch; INT64_MAX: there is none).
Result<int64_t> inspect_client_rules(const TlsClientRules& rules);

enum class ClientCertificateFault : uint8_t {
  none,
  missing,             // one is required, and the client has shown none
  expired,             // it, or one of its authorities
  early,               // not valid yet
  unknown_authority,   // no trusted authority has signed it
  revoked,             // it, or one of its authorities
  wrong_purpose,       // it is not for clients
  revocation_unknown,  // a list has ended, or an authority of the chain has none
  bad_chain,           // everything else: a signature, a constraint, the length of the chain
  count_,
};
const char* name(ClientCertificateFault fault);

// The names of a client in its certificate. They have only visible ASCII. A name with other bytes is left out.
struct PeerCertificate {
  std::string spiffe;       // "spiffe://example.org/billing", if it is an X.509-SVID (exactly one URI)
  std::string dns;          // the first name; lower case
  std::string email;        // the first address
  std::string common_name;  // of the subject
  std::string subject;      // RFC 2253, with escapes
  std::string serial;       // hexadecimal
  std::string fingerprint;  // SHA-256 of its DER form, hexadecimal, lower case
  std::string encoded;      // its DER form as Client-Cert has it (RFC 9440 §2.1): ":base64:"
};

// This function and the next two are for the worker's thread. Returns why the client's certificate made the handshake
// fail; `none` if the handshake failed for another reason.
ClientCertificateFault client_certificate_fault(const TlsStream& stream);
// Null: the peer has shown none.
std::unique_ptr<PeerCertificate> peer_certificate(const TlsStream& stream);
// Judges the client's certificate of `stream` by the present rules of `context`, a server's context. A resumed session
// has only the client's own certificate. If an intermediate authority is missing, the result can be
// `unknown_authority`.
ClientCertificateFault judge_peer(const TlsStream& stream, const TlsContext& context);

// Digest of the rules of a server's context; empty: it does not ask for certificates.
const std::string& client_rules_digest(const TlsContext& context);

}  // namespace tidegate
