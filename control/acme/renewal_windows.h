// SPDX-License-Identifier: Apache-2.0
// RenewalWindows: asks the authority when it wants each certificate to be renewed (ARI, RFC 9773), if it offers that.
//
// Invariant: what the authority said about a certificate counts for that certificate alone, and until it says something
// else. An authority that does not answer changes nothing.
//
// Threads: the control's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "control/acme/messages.h"
#include "control/acme/order_flow.h"
#include "control/acme/transport.h"

namespace tidegate::acme {

class RenewalWindows {
 public:
  explicit RenewalWindows(Transport& transport) : transport_(transport) {}

  // By the hash of the issued chain.
  std::optional<RenewalInfo> of(const std::string& certificate_hash) const;
  // When the authority is to be asked about it, in seconds since 1970; 0: now.
  int64_t ask_at_s(const std::string& certificate_hash) const;

  struct Question {
    std::string certificate_hash, chain_pem;
    std::string directory_url, ca_pem;
  };
  // Asks. `done` is called when of() and ask_at_s() have the answer, never before this has returned. The session gets
  // the directory, if it does not have it. One question at a time, and no order meanwhile.
  void ask(const Question& question, Session& session, std::function<void()> done);
  // What was said to a control before this one, or to this one before it was started again. Ignored if it has asked
  // itself.
  void recall(const std::string& certificate_hash, const std::optional<RenewalInfo>& info, int64_t ask_at_s);
  // Forgets certificates that are not among these.
  void keep(const std::set<std::string>& hashes);

 private:
  void take_directory(const Question& question, Session& session, const Result<Answer>& answer,
                      const std::function<void()>& done);
  void ask_for(const Question& question, const Session& session, const std::function<void()>& done);

  struct Known {
    std::optional<RenewalInfo> info;
    int64_t ask_at_s = 0;
  };
  Transport& transport_;
  std::map<std::string, Known> known_;
};

}  // namespace tidegate::acme
