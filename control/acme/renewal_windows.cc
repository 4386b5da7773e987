// SPDX-License-Identifier: Apache-2.0
#include "control/acme/renewal_windows.h"

#include <algorithm>

#include "control/limits.h"
#include "core/certificate_id.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate::acme {

namespace {

int64_t seconds_now() { return static_cast<int64_t>(realtime_ns() / kNsPerS); }

}  // namespace

std::optional<RenewalInfo> RenewalWindows::of(const std::string& certificate_hash) const {
  const auto known = known_.find(certificate_hash);
  return known == known_.end() ? std::nullopt : known->second.info;
}

int64_t RenewalWindows::ask_at_s(const std::string& certificate_hash) const {
  const auto known = known_.find(certificate_hash);
  return known == known_.end() ? 0 : known->second.ask_at_s;
}

void RenewalWindows::recall(const std::string& certificate_hash, const std::optional<RenewalInfo>& info,
                            int64_t ask_at_s) {
  known_.emplace(certificate_hash, Known{info, ask_at_s});
}

void RenewalWindows::keep(const std::set<std::string>& hashes) {
  std::erase_if(known_, [&](const auto& known) { return hashes.count(known.first) == 0; });
}

void RenewalWindows::ask(const Question& question, Session& session, std::function<void()> done) {
  // Even after a failure it is not asked again at once.
  known_[question.certificate_hash].ask_at_s = seconds_now() + static_cast<int64_t>(kAcmeWindowRetryS);
  if (session.directory) return ask_for(question, session, done);
  transport_.send({Request::Method::get, question.directory_url, {}}, question.ca_pem,
                  [this, question, &session, done = std::move(done)](const Result<Answer>& answer) {
                    take_directory(question, session, answer, done);
                  });
}

void RenewalWindows::take_directory(const Question& question, Session& session, const Result<Answer>& answer,
                                    const std::function<void()>& done) {
  Result<Directory> directory = !answer                 ? Result<Directory>(answer.error())
                                : answer->status == 200 ? parse_directory(answer->body)
                                                        : fail("no directory");
  if (!directory) return done();
  session.directory = *std::move(directory);
  ask_for(question, session, done);
}

void RenewalWindows::ask_for(const Question& question, const Session& session, const std::function<void()>& done) {
  Known& known = known_[question.certificate_hash];
  const Result<std::string> name = renewal_identifier(question.chain_pem);
  if (session.directory->renewal_info.empty() || !name) {
    known.ask_at_s = seconds_now() + static_cast<int64_t>(kAcmeWindowLongestS);
    transport_.later(done);
    return;
  }
  transport_.send({Request::Method::get, session.directory->renewal_info + "/" + *name, {}}, question.ca_pem,
                  [this, hash = question.certificate_hash, done](const Result<Answer>& answer) {
                    if (answer && answer->status == 200) {
                      const Result<RenewalInfo> info = parse_renewal_info(answer->body);
                      Known& known = known_[hash];
                      if (info) known.info = *info;
                      if (!info) log_warn("renewal information: {}", info.error().message);
                      // RFC 9773 §4.3: within our own bounds.
                      const uint64_t pause_s = std::clamp<uint64_t>(answer->retry_after_s.value_or(kAcmeWindowAskS),
                                                                    kAcmeWindowShortestS, kAcmeWindowLongestS);
                      known.ask_at_s = seconds_now() + static_cast<int64_t>(pause_s);
                    }
                    done();
                  });
}

}  // namespace tidegate::acme
