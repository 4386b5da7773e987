// SPDX-License-Identifier: Apache-2.0
// The record of an OCSP answer about a certificate, and when its authority is asked again. Pure: times are arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "conf/live_state.h"
#include "conf/model/certificate.h"
#include "core/ocsp.h"

namespace tidegate::ocsp {

// The outcome of a question.
struct StapleOutcome {
  enum class Kind : uint8_t {
    judged,     // an answer came and was checked
    no_answer,  // the responder cannot be reached, or answers without 200
    unaskable,  // there is no responder, or the chain does not have the issuer
  };
  Kind kind = Kind::no_answer;
  OcspJudgement judgement;     // for judged
  std::string answer;          // for judged: DER
  std::string why;             // for the others
  uint64_t retry_after_s = 0;  // what the responder asks for; 0: nothing
};

// The record after an outcome for the chain with this hash. `before`: the earlier record; null: none. A good answer
// stays until it ends, even after later failures, unless the authority revokes the certificate. `random` is from 0 to
// 1.
StapleRecord record_after(const StapleRecord* before, const std::string& certificate_hash, const StapleOutcome& outcome,
                          int64_t now_s, double random);

// The pause after an answer that is valid for `left_s` more, and the pause after `failures` failures in a row.
uint64_t pause_after_answer_s(int64_t left_s, double random);
uint64_t pause_after_failure_s(uint32_t failures, uint64_t retry_after_s, double random);

// "waiting": no question was answered yet; "good"; "ended": the last good answer is not valid any more; "revoked";
// "failed": there was no good answer so far. If `record` is null, or of another certificate than `certificate_hash`:
// waiting.
const char* state_word(const StapleRecord* record, const std::string& certificate_hash, int64_t now_s);

// The hash of the chain that proxies show for it. Empty for an ordered certificate that is not issued yet.
std::string shown_chain_hash(const Certificate& certificate, const LiveState& live_state);

}  // namespace tidegate::ocsp
