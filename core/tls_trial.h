// SPDX-License-Identifier: Apache-2.0
// A handshake in memory, to find out whether a server's context can serve any client at all. OpenSSL takes
// certificates that it then never shows: those whose key fits none of the server's ciphers and versions.
#pragma once

#include "core/result.h"
#include "core/tls.h"

namespace tidegate {

// A client that takes everything connects without a server name, and shows no certificate; if that fails, one that
// does not know TLS 1.3. An Error if the handshake fails for another reason than the missing certificate. About a
// millisecond. The context must belong to this thread.
Result<void> try_handshake(const TlsContext& server);

// What decides about the result, as long as the rest of the server's options is the same: the kind of the identity's
// key ("EC prime256v1", "RSA 2048") and the length of its chain.
struct TrialFacts {
  std::string key;
  size_t chain_bytes = 0;  // DER
};
TrialFacts trial_facts(const ServerIdentity& identity);

}  // namespace tidegate
