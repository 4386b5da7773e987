// SPDX-License-Identifier: Apache-2.0
// RenewalWindows: asks the authority when each certificate should be renewed (ARI, RFC 9773), if the authority offers
// that.
//
// Invariant: an answer about a certificate counts only for that certificate, and until the next answer. If an authority
// does not answer, nothing changes.
//
// Threads: the control's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "control/acme/authority_client.h"
#include "control/acme/messages.h"
#include "control/acme/order_flow.h"

namespace tidegate::acme {

class RenewalWindows {
 public:
  explicit RenewalWindows(AuthorityClient& transport) : transport_(transport) {}

  // The renewal window of a certificate. `certificate_hash` is the hash of the issued chain.
  std::optional<RenewalInfo> of(const std::string& certificate_hash) const;
  // The time at which to ask the authority about the certificate, in seconds since 1970; 0: now.
  int64_t ask_at_s(const std::string& certificate_hash) const;

  struct Question {
    std::string certificate_hash, chain_pem;
    std::string directory_url, ca_pem;
  };
  // Asks the authority. Calls `done` when of() and ask_at_s() have the answer, but never before this call has returned.
  // Stores the directory in the session, if it is missing. One question at a time, and no order at the same time.
  void ask(const Question& question, Session& session, std::function<void()> done);
  // Restores an answer that an earlier leader got, or this control before a restart. Ignored if this control has asked
  // already.
  void recall(const std::string& certificate_hash, const std::optional<RenewalInfo>& info, int64_t ask_at_s);
  // Forgets all other certificates.
  void keep(const std::set<std::string>& hashes);

 private:
  void take_directory(const Question& question, Session& session, const Result<Answer>& answer,
                      const std::function<void()>& done);
  void ask_for(const Question& question, const Session& session, const std::function<void()>& done);

  struct Known {
    std::optional<RenewalInfo> info;
    int64_t ask_at_s = 0;
  };
  AuthorityClient& transport_;
  std::map<std::string, Known> known_;
};

}  // namespace tidegate::acme
