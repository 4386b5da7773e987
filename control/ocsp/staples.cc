// SPDX-License-Identifier: Apache-2.0
#include "control/ocsp/staples.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "conf/model/certificate.h"
#include "control/limits.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/limits.h"
#include "core/log.h"

namespace tidegate::ocsp {

namespace {

constexpr int64_t kLongestNapS = 3'600;  // the wall clock may be set meanwhile
constexpr uint64_t kGatherMs = 50, kStoreAgainMs = 1'000;

int64_t epoch_now_s() { return static_cast<int64_t>(realtime_ns() / kNsPerS); }

double random_fraction() {
  const std::string bytes = random_bytes(2);
  return static_cast<double>(static_cast<uint8_t>(bytes[0]) << 8 | static_cast<uint8_t>(bytes[1])) / 65'536.0;
}

Counter& answer_counter(const char* result) {
  return metrics().counter("tidegate_control_ocsp_answers_total", "Questions to OCSP responders, by what came of them.",
                           {{"result", result}});
}

const StapleRecord* record_in(const LiveState& live_state, const std::string& name) {
  const auto found = live_state.staples.find(name);
  return found == live_state.staples.end() ? nullptr : &found->second;
}

}  // namespace

Staples::Staples(EventLoop& loop, HostState& host_state)
    : host_state_(host_state),
      schedule_timer_(loop, [this] { schedule(); }),
      write_timer_(loop, [this] { write(); }),
      no_answer_count_(answer_counter("no_answer")),
      unaskable_count_(answer_counter("unaskable")) {
  const acme::AuthorityClientRules rules{"http,https", kOcspConnectMs, kOcspRequestMs, kMaxOcspAnswerBytes};
  for (size_t i = 0; i < kOcspQuestions; ++i) lines_.push_back(std::make_unique<acme::AuthorityClient>(loop, rules));
  for (size_t i = 0; i < kOcspVerdicts; ++i) {
    verdict_counts_[i] = &answer_counter(tidegate::name(static_cast<OcspVerdict>(i)));
  }
}

Staples::~Staples() = default;

void Staples::update() {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return;
  const LiveState& live_state = *host_state_.live_state();
  std::map<std::string, Watched> watched;
  for (const Certificate& certificate : model->certificates) {
    if (!certificate.ocsp.enabled) continue;
    Watched now{shown_chain_hash(certificate, live_state), certificate.ocsp.responder, 0, false};
    if (now.chain_hash.empty()) continue;
    const auto before = watched_.find(certificate.name);
    const bool same_chain = before != watched_.end() && before->second.chain_hash == now.chain_hash;
    if (same_chain && before->second.responder == now.responder) {
      now = before->second;
    } else if (!same_chain) {
      const StapleRecord* const record = record_in(live_state, certificate.name);
      if (record != nullptr && record->certificate_hash == now.chain_hash) now.due_s = record->next_try_s;
    }
    watched.emplace(certificate.name, std::move(now));
  }
  watched_ = std::move(watched);
  if (!watched_.empty() || !live_state.staples.empty()) schedule_timer_.arm_after_ms(0);
}

acme::AuthorityClient* Staples::free_line() {
  for (const std::unique_ptr<acme::AuthorityClient>& line : lines_) {
    if (!line->is_busy()) return line.get();
  }
  return nullptr;
}

// Sends the questions that are due, as long as there are free lines, or sleeps until one is due.
void Staples::schedule() {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return;
  const int64_t now_s = epoch_now_s();
  int64_t next_s = now_s + kLongestNapS;
  size_t asked = 0;  // counted per turn, because each question is work for this loop
  for (auto& [name, watched] : watched_) {
    if (watched.is_asked) continue;
    if (watched.due_s > now_s) {
      next_s = std::min(next_s, watched.due_s);
      continue;
    }
    acme::AuthorityClient* const line = free_line();
    if (line == nullptr || asked++ == kOcspQuestions) break;  // the next outcome calls this function again
    ask(name, watched, *line);
  }
  forget_unwanted(*model);
  if (!watched_.empty()) schedule_timer_.arm_after_ms(static_cast<uint64_t>(next_s - now_s) * 1'000);
}

void Staples::ask(const std::string& name, Watched& watched, acme::AuthorityClient& line) {
  watched.is_asked = true;
  Question question{name, watched.chain_hash, watched.responder, nullptr};
  const auto nobody_asked = [&](std::string why) {
    line.later([weak = weak_from_this(), question, why = std::move(why)] {
      if (const auto alive = weak.lock()) alive->take(question, {StapleOutcome::Kind::unaskable, {}, {}, why, 0});
    });
  };
  Result<std::string> chain = host_state_.store().object(watched.chain_hash);
  if (!chain) return nobody_asked(chain.error().message);
  const Result<OcspFacts> facts = ocsp_facts(*chain);
  if (!facts) return nobody_asked(facts.error().message);
  const std::string& url = watched.responder.empty() ? facts->responder : watched.responder;
  if (url.empty()) return nobody_asked("the certificate names no OCSP responder");
  Result<std::string> text = ocsp_question(*chain);
  if (!text) return nobody_asked(text.error().message);
  question.chain_pem = std::make_shared<const std::string>(*std::move(chain));
  const acme::Request request{acme::Request::Method::post, url, *std::move(text), "application/ocsp-request"};
  line.send(request, {}, [weak = weak_from_this(), question](const Result<acme::Answer>& answer) {
    if (const auto alive = weak.lock()) alive->on_answer(question, answer);
  });
}

void Staples::on_answer(const Question& question, const Result<acme::Answer>& answer) {
  StapleOutcome outcome;
  if (!answer) {
    outcome.why = answer.error().message;
  } else if (answer->status != 200) {
    outcome.why = fmt::format("the OCSP responder answers with status {}", answer->status);
    outcome.retry_after_s = answer->retry_after_s.value_or(0);
  } else {
    outcome.kind = StapleOutcome::Kind::judged;
    outcome.judgement = judge_ocsp(*question.chain_pem, answer->body, epoch_now_s());
    outcome.answer = answer->body;
  }
  take(question, std::move(outcome));
}

void Staples::count(const StapleOutcome& outcome) {
  if (outcome.kind == StapleOutcome::Kind::judged) {
    verdict_counts_[static_cast<size_t>(outcome.judgement.verdict)]->add();
  } else {
    (outcome.kind == StapleOutcome::Kind::no_answer ? no_answer_count_ : unaskable_count_).add();
  }
}

void Staples::take(const Question& question, StapleOutcome outcome) {
  count(outcome);
  schedule_timer_.arm_after_ms(0);
  const auto watched = watched_.find(question.name);
  if (watched == watched_.end() || watched->second.chain_hash != question.chain_hash ||
      watched->second.responder != question.responder) {
    return;  // by now another certificate is shown, or another responder is asked
  }
  const StapleRecord* const before = record_in(*host_state_.live_state(), question.name);
  StapleRecord record = record_after(before, question.chain_hash, outcome, epoch_now_s(), random_fraction());
  watched->second.is_asked = false;
  watched->second.due_s = record.next_try_s;
  const bool was_good = before != nullptr && before->certificate_hash == question.chain_hash && before->failures == 0 &&
                        before->status == RevocationStatus::good;
  if (record.status == RevocationStatus::revoked) {
    log_error("certificate {}: {}", question.name, record.error);
  } else if (record.failures > 0) {
    log_warn("certificate {}: no good OCSP answer: {}; the next question is in {} s", question.name, record.error,
             record.next_try_s - epoch_now_s());
  } else if (!was_good) {
    log_info("certificate {}: the OCSP answer is good", question.name);
  }
  if (!record.answer_hash.empty() && record.failures == 0) changes_.objects.push_back(std::move(outcome.answer));
  changes_.staples.emplace_back(question.name, std::move(record));
  if (!write_timer_.armed() && !writes_) write_timer_.arm_after_ms(kGatherMs);
}

// After a start many answers come at once. They are written together.
void Staples::write() {
  if (writes_ || changes_.staples.empty()) return;
  writes_ = true;
  const auto changes = std::make_shared<const CertificateChanges>(std::exchange(changes_, {}));
  host_state_.decide<Result<uint64_t>>(
      [&host_state = host_state_, changes] { return host_state.set_certificates(*changes); },
      [weak = weak_from_this(), changes](const Result<uint64_t>& written) {
        const auto alive = weak.lock();
        if (!alive) return;
        alive->writes_ = false;
        if (!written) {
          log_error("OCSP answers cannot be recorded: {}", written.error().message);
          CertificateChanges again = *changes;  // in front of those that came meanwhile
          auto& newer = alive->changes_;
          again.staples.insert(again.staples.end(), newer.staples.begin(), newer.staples.end());
          again.objects.insert(again.objects.end(), newer.objects.begin(), newer.objects.end());
          newer = std::move(again);
        }
        if (!alive->changes_.staples.empty()) {
          alive->write_timer_.arm_after_ms(written ? kGatherMs : kStoreAgainMs);
        }
      });
}

// Removes records of certificates that do not have `ocsp` any more. A certificate that is not issued yet may have an
// old record.
void Staples::forget_unwanted(const Model& model) {
  if (writes_ || !changes_.staples.empty()) return;
  for (const auto& [name, record] : host_state_.live_state()->staples) {
    const bool wanted = watched_.contains(name) || std::any_of(model.certificates.begin(), model.certificates.end(),
                                                               [&key = name](const Certificate& each) {
                                                                 return each.ocsp.enabled && each.name == key;
                                                               });
    if (!wanted) changes_.staples.emplace_back(name, std::nullopt);
  }
  if (!changes_.staples.empty()) write_timer_.arm_after_ms(kGatherMs);
}

}  // namespace tidegate::ocsp
