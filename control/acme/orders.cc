// SPDX-License-Identifier: Apache-2.0
#include "control/acme/orders.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "control/acme/renewal.h"
#include "control/api/json_bounds.h"
#include "control/limits.h"
#include "control/observe/convergence.h"
#include "core/assert.h"
#include "core/certificate_id.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/tls.h"

namespace tidegate::acme {

namespace {

constexpr const char* kOrdersHelp = "Tries to get a certificate from the authority, by how they ended.";
constexpr uint64_t kWriteAgainMs = 1'000, kPlanesPauseMs = 20;
constexpr int64_t kLongestSleepS = 3'600;  // the wall clock may be set meanwhile

int64_t now_s() { return static_cast<int64_t>(realtime_ns() / kNsPerS); }

const char* word(AcmeChallenge challenge) {
  switch (challenge) {
    case AcmeChallenge::http01:
      return "http-01";
    case AcmeChallenge::tls_alpn01:
      return "tls-alpn-01";
    case AcmeChallenge::dns01:
      return "dns-01";
  }
  return "?";
}

double random_share() {
  const std::string bytes = random_bytes(2);
  return static_cast<double>(static_cast<uint8_t>(bytes[0]) << 8 | static_cast<uint8_t>(bytes[1])) / 65'536.0;
}

// True if a plane of that kind serves with this live state.
bool is_shown(const nlohmann::json& status, const std::string& plane, uint64_t live_state) {
  for (const nlohmann::json& node : status.value("nodes", nlohmann::json::array())) {
    for (const nlohmann::json& each : node.value("planes", nlohmann::json::array())) {
      if (string_member(each, "plane") == plane && bool_member(each, "ready") &&
          number_member(each, "words") >= live_state) {
        return true;
      }
    }
  }
  return false;
}

// A text of everything that distinguishes one order from another.
std::string text_of(const Certificate& certificate, const Acme& authority) {
  return fmt::format("{} {} {} {} {} {} {}", fmt::join(certificate.order.names, ","), word(certificate.order.challenge),
                     authority.directory, fmt::join(authority.contact, ","), authority.ca.hash, authority.eab_key_id,
                     authority.eab_key);
}

// The authority's certificate is used only if it matches the order.
Result<CertificateInfo> judge(const std::string& chain_pem, const std::string& key_pem,
                              const std::vector<std::string>& names) {
  Result<CertificateInfo> info = inspect_identity({chain_pem, key_pem});
  if (!info) return fail("what the authority issued cannot be used: " + info.error().message);
  for (const std::string& name : names) {
    if (std::find(info->names.begin(), info->names.end(), name) == info->names.end()) {
      return fail("what the authority issued is not for " + name);
    }
  }
  if (info->not_after_s <= now_s()) return fail("what the authority issued has ended already");
  return info;
}

}  // namespace

Orders::Orders(EventLoop& loop, HostState& host_state, Fleet& fleet)
    : host_state_(host_state),
      fleet_(fleet),
      transport_(loop),
      windows_(transport_),
      schedule_timer_(loop, [this] { schedule(); }),
      flow_timer_(loop,
                  [this] {
                    if (const auto then = std::exchange(on_flow_timer_, nullptr)) then();
                  }),
      issued_count_(metrics().counter("tidegate_control_acme_orders_total", kOrdersHelp, {{"result", "issued"}})),
      refused_count_(metrics().counter("tidegate_control_acme_orders_total", kOrdersHelp, {{"result", "refused"}})),
      unreachable_count_(
          metrics().counter("tidegate_control_acme_orders_total", kOrdersHelp, {{"result", "unreachable"}})),
      rejected_nonces_(metrics().counter("tidegate_control_acme_rejected_nonces_total",
                                         "Requests that an authority refused because of their nonce.")) {}

Orders::~Orders() = default;

void Orders::after(uint64_t delay_ms, std::function<void()> then) {
  on_flow_timer_ = std::move(then);
  flow_timer_.arm_after_ms(delay_ms);
}

IssuedCertificate Orders::record_of(const std::string& name) const {
  const LiveState& live_state = *host_state_.live_state();
  const auto known = live_state.certificates.find(name);
  return known == live_state.certificates.end() ? IssuedCertificate{} : known->second;
}

void Orders::update() {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return;
  look_for_changes(*model);
  schedule_timer_.arm_after_ms(0);
}

void Orders::look_for_changes(const Model& model) {
  std::map<std::string, Known> known;
  for (const Certificate& certificate : model.certificates) {
    if (!certificate.is_ordered()) continue;
    Known now{text_of(certificate, model.acme), false};
    if (const auto before = known_.find(certificate.name); before != known_.end()) {
      now.at_once = before->second.at_once || before->second.wanted != now.wanted;
    }
    known.emplace(certificate.name, std::move(now));
  }
  known_ = std::move(known);
}

// Starts the order that is due, or sleeps until one is due.
void Orders::schedule() {
  if (running_ || asks_) return;
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return;
  const int64_t now = now_s();
  const LiveState& live_state = *host_state_.live_state();
  recall_windows(live_state);
  const Certificate* next = nullptr;
  int64_t next_s = now + kLongestSleepS;
  for (const Certificate& certificate : model->certificates) {
    if (!certificate.is_ordered()) continue;
    const auto record = live_state.certificates.find(certificate.name);
    const bool is_known = record != live_state.certificates.end();
    int64_t due_s = due_at_s(is_known ? &record->second : nullptr, certificate.order.names,
                             is_known ? windows_.of(record->second.certificate_hash) : std::nullopt);
    const auto known = known_.find(certificate.name);
    const bool serves =
        is_known && record->second.is_issued() && same_names(record->second.names, certificate.order.names);
    if (known != known_.end() && known->second.at_once && !serves) due_s = 0;
    if (due_s >= next_s) continue;
    next_s = due_s;
    next = &certificate;
  }
  if (next != nullptr && next_s <= now) return start(*next, model->acme);
  if (ask_for_a_window(*model, now, next_s)) return;
  if (next != nullptr || !live_state.certificates.empty()) {
    schedule_timer_.arm_after_ms(static_cast<uint64_t>(next_s - now) * 1'000);
  }
  forget_unwanted(*model, now);
}

// The state knows what an earlier leader was told, and when the authority must be asked next.
void Orders::recall_windows(const LiveState& live_state) {
  for (const auto& [name, record] : live_state.certificates) {
    if (record.is_issued() && record.ask_window_at_s != 0) {
      windows_.recall(record.certificate_hash, window_in(record), record.ask_window_at_s);
    }
  }
}

// A later leader, or this control after a restart, respects it.
void Orders::keep_window(const std::string& certificate_hash) {
  CertificateChanges changes;
  for (const auto& [name, record] : host_state_.live_state()->certificates) {
    if (record.certificate_hash != certificate_hash) continue;
    IssuedCertificate told = record;
    if (const std::optional<RenewalInfo> window = windows_.of(certificate_hash)) {
      told.window_start_s = window->start_s;
      told.window_end_s = window->end_s;
    }
    told.ask_window_at_s = windows_.ask_at_s(certificate_hash);
    changes.certificates.emplace_back(name, std::move(told));
  }
  write(std::move(changes), [weak = weak_from_this()](const Result<uint64_t>& written) {
    const auto alive = weak.lock();
    if (!alive) return;
    if (!written) log_warn("renewal information cannot be recorded: {}", written.error().message);
    alive->asks_ = false;
    alive->schedule_timer_.arm_after_ms(0);
  });
}

// Asks the authority when it wants a certificate renewed, if this is due. Otherwise lowers `next_s` to the time of the
// next question.
bool Orders::ask_for_a_window(const Model& model, int64_t now, int64_t& next_s) {
  const LiveState& live_state = *host_state_.live_state();
  std::set<std::string> served;
  for (const Certificate& certificate : model.certificates) {
    const auto record = live_state.certificates.find(certificate.name);
    if (certificate.is_ordered() && record != live_state.certificates.end() && record->second.is_issued()) {
      served.insert(record->second.certificate_hash);
    }
  }
  windows_.keep(served);
  for (const std::string& hash : served) {
    const int64_t at_s = windows_.ask_at_s(hash);
    next_s = std::min(next_s, std::max(at_s, now));
    if (at_s > now) continue;
    const Result<std::string> chain = host_state_.store().object(hash);
    if (!chain) continue;
    if (!session_of_.starts_with(model.acme.directory + " ")) {
      session_ = {};
      session_of_ = model.acme.directory + " ";
    }
    asks_ = true;
    windows_.ask({hash, *chain, model.acme.directory, model.acme.ca.bytes ? *model.acme.ca.bytes : std::string()},
                 session_, [weak = weak_from_this(), hash] {
                   if (const auto alive = weak.lock()) alive->keep_window(hash);
                 });
    return true;
  }
  return false;
}

// Removes certificates that no version in force names, after they have expired; until then a rollback may need them.
// Also removes proofs of an order that another control did not finish.
void Orders::forget_unwanted(const Model& model, int64_t now) {
  const LiveState& live_state = *host_state_.live_state();
  CertificateChanges changes;
  for (const auto& [name, record] : live_state.certificates) {
    const bool wanted =
        std::any_of(model.certificates.begin(), model.certificates.end(),
                    [&key = name](const Certificate& each) { return each.is_ordered() && each.name == key; });
    if (!wanted && (!record.is_issued() || record.not_after_s < now)) {
      changes.certificates.emplace_back(name, std::nullopt);
    }
  }
  if (!live_state.proofs.empty()) changes.proofs.emplace();
  if (changes.certificates.empty() && !changes.proofs) return;
  write(std::move(changes), [](const Result<uint64_t>& written) {
    if (!written) log_warn("records of ordered certificates stay: {}", written.error().message);
  });
}

void Orders::write(CertificateChanges changes, std::function<void(Result<uint64_t>)> done) {
  host_state_.decide<Result<uint64_t>>(
      [&host_state = host_state_, changes = std::move(changes)] { return host_state.set_certificates(changes); },
      std::move(done));
}

// The name of the certificate that an order renews, if the authority has answered about it: then it comes from this
// authority.
std::string Orders::predecessor_of(const std::string& name) const {
  const IssuedCertificate record = record_of(name);
  if (!record.is_issued() || !windows_.of(record.certificate_hash)) return {};
  const Result<std::string> chain = host_state_.store().object(record.certificate_hash);
  if (!chain) return {};
  const Result<std::string> identifier = renewal_identifier(*chain);
  return identifier ? *identifier : std::string();
}

void Orders::start(const Certificate& certificate, const Acme& authority) {
  TIDEGATE_ASSERT(!running_, "one order at a time");
  if (const auto known = known_.find(certificate.name); known != known_.end()) known->second.at_once = false;
  running_ = std::make_unique<Running>();
  running_->name = certificate.name;
  running_->names = certificate.order.names;
  if (authority.ca.bytes) running_->ca_pem = *authority.ca.bytes;
  running_->plane = certificate.order.challenge == AcmeChallenge::dns01 ? "dns" : "l7";
  Wanted wanted{authority.directory,
                authority.contact,
                authority.eab_key_id,
                authority.eab_key,
                running_->names,
                word(certificate.order.challenge),
                predecessor_of(running_->name)};
  log_info("certificate {}: ordering it from {}", running_->name, authority.directory);
  with_account_key(authority.directory, [this, wanted = std::move(wanted)](Result<SigningKey> account) {
    Result<SigningKey> key = SigningKey::make();
    if (!account) return failed({Failure::Kind::unreachable, account.error().message, 0});
    if (!key) return failed({Failure::Kind::unreachable, key.error().message, 0});
    const std::string session_of = fmt::format("{} {}", wanted.directory_url, base64url_encode(account->x()));
    if (session_of != session_of_) session_ = {};
    session_of_ = session_of;
    running_->account = *std::move(account);
    running_->key = *std::move(key);
    running_->flow.emplace(session_, *running_->account, *running_->key, wanted);
    perform(running_->flow->begin());
  });
}

// The account's key is in the state before the authority gets it.
void Orders::with_account_key(const std::string& directory, std::function<void(Result<SigningKey>)> done) {
  const LiveState& live_state = *host_state_.live_state();
  if (const auto known = live_state.accounts.find(directory); known != live_state.accounts.end()) {
    const Result<std::string> pem = host_state_.store().object(known->second);
    return done(pem ? SigningKey::from_pem(*pem) : pem.error());
  }
  const Result<SigningKey> key = SigningKey::make();
  if (!key) return done(key.error());
  Result<std::string> pem = key->to_pem();
  if (!pem) return done(pem.error());
  CertificateChanges changes;
  changes.accounts.emplace_back(directory, sha256_hex(*pem));
  changes.objects.push_back(*pem);
  write(std::move(changes), [weak = weak_from_this(), pem = *pem, done = std::move(done)](Result<uint64_t> written) {
    const auto alive = weak.lock();
    if (!alive) return;
    done(written ? SigningKey::from_pem(pem) : written.error());
  });
}

void Orders::perform(Action action) {
  rejected_nonces_.add(std::exchange(session_.rejected_nonces, 0));
  switch (action.kind) {
    case Action::Kind::send:
      return transport_.send(action.request, running_->ca_pem, [weak = weak_from_this()](const Result<Answer>& answer) {
        const auto alive = weak.lock();
        if (!alive) return;
        alive->perform(answer ? alive->running_->flow->on_answer(*answer)
                              : alive->running_->flow->on_silence(answer.error().message));
      });
    case Action::Kind::publish:
      return publish(std::move(action.proofs));
    case Action::Kind::wait:
      return after(action.wait_ms, [this] { perform(running_->flow->on_waited()); });
    case Action::Kind::issued:
      return issued(action.chain_pem);
    case Action::Kind::failed:
      return failed(action.failure);
  }
}

void Orders::publish(AcmeProofs proofs) {
  CertificateChanges changes;
  changes.proofs = std::move(proofs);
  running_->showing = true;
  write(std::move(changes), [weak = weak_from_this()](const Result<uint64_t>& written) {
    const auto alive = weak.lock();
    if (!alive) return;
    if (!written) return alive->failed({Failure::Kind::unreachable, written.error().message, 0});
    alive->wait_for_planes(*written, monotonic_ns() + kAcmePublishMs * kNsPerMs);
  });
}

// The order waits for the planes only for a while: one plane that does not follow must not block all renewals. If no
// plane shows the proofs, for example while an edge starts, the authority is not told, because it would count a
// failure.
void Orders::wait_for_planes(uint64_t live_state, uint64_t deadline_ns) {
  fleet_.status([weak = weak_from_this(), live_state, deadline_ns](const nlohmann::json& status) {
    const auto alive = weak.lock();
    if (!alive) return;
    const Convergence convergence = check_convergence(status, {0, live_state, 0});
    const bool late = monotonic_ns() >= deadline_ns, shown = is_shown(status, alive->running_->plane, live_state);
    if (!(convergence.reached && shown) && !late) {
      return alive->after(kPlanesPauseMs, [self = alive.get(), live_state, deadline_ns] {
        self->wait_for_planes(live_state, deadline_ns);
      });
    }
    if (!shown) {
      return alive->failed(
          {Failure::Kind::unreachable, fmt::format("no {} shows the proofs", alive->running_->plane), 0});
    }
    if (late) {
      log_warn("certificate {}: planes do not show the proofs: {}", alive->running_->name,
               fmt::join(convergence.missing, ", "));
    }
    alive->perform(alive->running_->flow->on_published());
  });
}

void Orders::issued(const std::string& chain_pem) {
  const Result<std::string> key_pem = running_->key->to_pem();
  if (!key_pem) return failed({Failure::Kind::refused, key_pem.error().message, 0});
  const Result<CertificateInfo> info = judge(chain_pem, *key_pem, running_->names);
  if (!info) return failed({Failure::Kind::refused, info.error().message, 0});
  IssuedCertificate record;
  record.names = running_->names;
  record.certificate_hash = sha256_hex(chain_pem);
  record.key_hash = sha256_hex(*key_pem);
  record.not_before_s = info->not_before_s;
  record.not_after_s = info->not_after_s;
  issued_count_.add();
  log_info("certificate {}: issued by {}", running_->name, info->issuer);
  this->record(std::move(record), {chain_pem, *key_pem});
}

void Orders::failed(const Failure& failure) {
  IssuedCertificate record = record_of(running_->name);
  ++record.failures;
  record.error = failure.why.substr(0, kMaxProblemBytes);
  const uint64_t pause_s = pause_after_failure_s(failure, record.failures, random_share());
  record.next_try_s = now_s() + static_cast<int64_t>(pause_s);
  (failure.kind == Failure::Kind::refused ? refused_count_ : unreachable_count_).add();
  log_error("certificate {}: {}; the next try is in {} s", running_->name, failure.why, pause_s);
  this->record(std::move(record), {});
}

// The end of an order. An issued certificate is not lost if it cannot be written at once.
void Orders::record(IssuedCertificate record, std::vector<std::string> objects) {
  CertificateChanges changes;
  changes.certificates.emplace_back(running_->name, record);
  if (running_->showing) changes.proofs.emplace();
  changes.objects = objects;
  write(std::move(changes), [weak = weak_from_this(), record, objects](const Result<uint64_t>& written) {
    const auto alive = weak.lock();
    if (!alive) return;
    if (!written) {
      log_error("certificate {}: cannot be recorded: {}", alive->running_->name, written.error().message);
      return alive->after(kWriteAgainMs, [self = alive.get(), record, objects] { self->record(record, objects); });
    }
    alive->running_.reset();
    // By a timer, because orders that end at once would recurse deeper and deeper.
    alive->schedule_timer_.arm_after_ms(0);
  });
}

}  // namespace tidegate::acme
