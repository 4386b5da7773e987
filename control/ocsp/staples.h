// SPDX-License-Identifier: Apache-2.0
// Staples: on the control that leads, asks authorities about the certificates that have `ocsp`, and writes the good
// answers to the live state. Every proxy takes them from there, so no handshake ever waits for an authority.
//
// Invariants: answers in the live state were checked here (judge_ocsp). At most kOcspQuestions are in progress, and at
// most one for each certificate. The time of the next question is in the record, so the next leader, or this control
// after a restart, respects it.
//
// Threads: the control's loop.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "conf/model.h"
#include "control/acme/authority_client.h"
#include "control/host_state.h"
#include "control/ocsp/staple_record.h"
#include "core/event_loop.h"
#include "core/metrics.h"

namespace tidegate::ocsp {

class Staples : public std::enable_shared_from_this<Staples> {
 public:
  Staples(EventLoop& loop, HostState& host_state);
  ~Staples();

  // Checks what must be asked. Call it at the start, and for each version and live state.
  void update();

 private:
  struct Watched {
    std::string chain_hash;
    std::string responder;  // from the configuration; empty: the certificate's own
    int64_t due_s = 0;      // epoch
    bool is_asked = false;  // a question is in progress
  };
  // A question in progress.
  struct Question {
    std::string name, chain_hash, responder;  // as in the question
    std::shared_ptr<const std::string> chain_pem;
  };

  void schedule();
  acme::AuthorityClient* free_line();
  void ask(const std::string& name, Watched& watched, acme::AuthorityClient& line);
  void on_answer(const Question& question, const Result<acme::Answer>& answer);
  void take(const Question& question, StapleOutcome outcome);
  void count(const StapleOutcome& outcome);
  void write();
  void forget_unwanted(const Model& model);

  HostState& host_state_;
  std::vector<std::unique_ptr<acme::AuthorityClient>> lines_;
  Timer schedule_timer_, write_timer_;
  std::map<std::string, Watched> watched_;  // by the certificate's name
  CertificateChanges changes_;              // changes that were not written yet
  bool writes_ = false;
  std::array<Counter*, kOcspVerdicts> verdict_counts_{};
  Counter &no_answer_count_, &unaskable_count_;
};

}  // namespace tidegate::ocsp
