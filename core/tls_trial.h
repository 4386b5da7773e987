// SPDX-License-Identifier: Apache-2.0
// A handshake in memory, to find out whether a server's context can serve any client at all. OpenSSL takes
// certificates that it then never shows: those whose key fits none of the server's ciphers and versions.
#pragma once

#include "core/result.h"
#include "core/tls.h"

namespace tidegate {

// Tries a handshake in memory. The client accepts everything, sends no server name, and shows no certificate. If its
// handshake fails, a second client tries that does not know TLS 1.3. An Error if the handshake fails for another reason
// than the missing certificate. About a millisecond. The context must belong to this thread.
Result<void> try_handshake(const TlsContext& server);

// The facts of an identity on which the result depends, if the other options of the server are the same: the kind of
// its key ("EC prime256v1", "RSA 2048") and the length of its chain.
struct TrialFacts {
  std::string key;
  size_t chain_bytes = 0;  // DER
};
TrialFacts trial_facts(const ServerIdentity& identity);

}  // namespace tidegate
