// SPDX-License-Identifier: Apache-2.0
// News from etcd, and the election. The effects on this host's state are in edge_store_state.cc.
#include "control/etcd/edge_store.h"

#include <fmt/format.h>

#include <utility>

#include "control/api/problem.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate::etcd {

using nlohmann::json;

namespace {

constexpr uint64_t kPauseAfterStepDownNs = 1'000'000'000;

}  // namespace

EdgeStore::EdgeStore(EventLoop& loop, HostState& host_state, EdgeStoreOptions options,
                     std::function<void(bool)> on_role)
    : loop_(loop),
      host_state_(host_state),
      options_(std::move(options)),
      on_role_(std::move(on_role)),
      keys_(options_.prefix),
      seal_key_(seal_key(options_.site_secret)),
      client_(loop, options_.client),
      reader_(client_, keys_),
      writer_(loop, client_, keys_, [this] { return election_.leads(monotonic_ns()); }),
      poll_timer_(loop, [this] { poll(); }),
      step_timer_(loop, [this] { step(); }),
      failures_(metrics().counter("tidegate_control_etcd_failures_total", "Reads of etcd that got no answer.")),
      elections_(metrics().counter("tidegate_control_elections_won_total", "Times that this control began to lead.")),
      // At most one write and one state are sealed at a time.
      seals_(loop, "control-seals", 2),
      opens_(loop, "control-opens", 1) {}

EdgeStore::~EdgeStore() { *self_ = nullptr; }

Result<void> EdgeStore::start() {
  Result<JournalPosition> position = host_state_.store().journal_position();
  if (!position) return position.error();
  position_ = *std::move(position);
  host_state_.set_journal(this);
  poll();
  return {};
}

// --- news

void EdgeStore::poll() {
  if (polling_) return;
  polling_ = true;
  const std::string asked = client_.endpoint();
  const uint64_t known = std::max(leader_seen_, head_seen_);
  client_.call("/v3/kv/range", range_request(keys_.now(), range_end_of(keys_.now()), 0),
               [this, asked, known](const Result<json>& answer) {
                 polling_ = false;
                 const Result<Range> range = answer ? parse_range(*answer) : Result<Range>(answer.error());
                 poll_timer_.arm_after_ms(range ? kPollMs : kPollAgainMs);
                 if (!range) {
                   failures_.add();
                   if (std::exchange(answers_, false) || silence_.empty()) log_warn("etcd: {}", range.error().message);
                   silence_ = range.error().message;
                   return step();
                 }
                 if (!std::exchange(answers_, true)) log_info("etcd answers: {}", client_.endpoint());
                 silence_.clear();
                 // The watch at an endpoint that does not answer may be silent for ever.
                 if (watching_ && asked != client_.endpoint()) {
                   client_.end_watch();
                   watching_ = false;
                 }
                 // the store went back, so its present content counts, even if it is older
                 if (range->revision < known) {
                   log_error("etcd: it went back from revision {} to {}", known, range->revision);
                   leader_seen_ = head_seen_ = 0;
                   client_.end_watch();
                   watching_ = false;
                 }
                 take_now(*range);
                 if (!watching_) watch_from(range->revision + 1);
               });
}

void EdgeStore::watch_from(uint64_t revision) {
  watching_ = true;
  client_.watch(
      watch_request(keys_.now(), range_end_of(keys_.now()), revision),
      [this](const WatchAnswer& answer) {
        if (answer.canceled) {  // etcd has compacted the revision at which the watch should begin
          client_.end_watch();
          watching_ = false;
          return poll();
        }
        if (!answers_) poll();  // etcd is back, so ask now and not at the timer
        if (answer.events.empty()) return;
        for (const WatchEvent& event : answer.events) take_key(event.kv, event.erased, event.kv.mod_revision);
        catch_up();
        step();
      },
      [this](const std::string& why) {
        log_debug("etcd: the watch ended: {}", why);
        watching_ = false;
        poll();
      });
}

void EdgeStore::take_now(const Range& range) {
  bool leader = false, head = false;
  for (const KeyValue& kv : range.kvs) {
    leader = leader || kv.key == keys_.leader();
    head = head || kv.key == keys_.head();
    take_key(kv, false, range.revision);
  }
  const auto absent = [&](std::string key) {
    KeyValue kv;
    kv.key = std::move(key);
    take_key(kv, true, range.revision);
  };
  if (!leader) absent(keys_.leader());
  if (!head) absent(keys_.head());
  now_known_ = true;
  const uint64_t created = election_.create_revision();
  if (created != 0 && range.revision >= created) read_from_ = created;
  catch_up();
  step();
  if (election_.create_revision() != 0 && read_from_ == 0) poll();
}

// `revision`: the store's revision for this content of the key. News that are older than earlier ones are dropped.
void EdgeStore::take_key(const KeyValue& kv, bool erased, uint64_t revision) {
  if (kv.key == keys_.leader()) {
    if (revision < leader_seen_) return;
    leader_seen_ = revision;
    leader_ = erased ? std::nullopt : std::optional(parse_leader(kv.value));
    election_.key_seen(erased ? 0 : kv.create_revision);
  } else if (kv.key == keys_.head()) {
    if (revision < head_seen_) return;
    head_seen_ = revision;
    if (erased) {
      head_.reset();
      head_revision_ = 0;
      return;
    }
    Result<Head> head = parse_head(kv.value);
    if (!head) return trouble(head.error().message);
    head_ = *std::move(head);
    head_revision_ = kv.mod_revision;
  }
}

// --- the election

void EdgeStore::step() {
  settle_role();
  switch (election_.next(monotonic_ns())) {
    case Election::Ask::nothing:
      break;
    case Election::Ask::grant:
      ask_grant();
      break;
    case Election::Ask::campaign:
      ask_campaign();
      break;
    case Election::Ask::renew:
      ask_renewal();
      break;
  }
  uint64_t wake_ns = election_.wake_ns();
  if (told_leads_) wake_ns = std::min(wake_ns, election_.lease_until_ns());
  step_timer_.cancel();
  if (wake_ns != UINT64_MAX) step_timer_.arm_at_ns(wake_ns);
}

void EdgeStore::ask_grant() {
  const uint64_t sent_ns = monotonic_ns();
  client_.call("/v3/lease/grant", {{"TTL", std::to_string(options_.lease_s)}},
               [this, sent_ns](const Result<json>& answer) {
                 const Result<Lease> lease = answer ? parse_grant(*answer) : Result<Lease>(answer.error());
                 if (lease) {
                   election_.granted(sent_ns, lease->id, lease->ttl_s * kNsPerS);
                 } else {
                   election_.failed(monotonic_ns());
                 }
                 step();
               });
}

void EdgeStore::ask_campaign() {
  Txn txn;
  txn.compares.push_back({Compare::Of::create_revision, keys_.leader(), 0});
  txn.puts.emplace_back(keys_.leader(), encode(LeaderRecord{options_.node, options_.api}));
  txn.lease = election_.lease();
  txn.otherwise_get = {keys_.leader()};
  client_.call("/v3/kv/txn", txn_request(txn), [this, lease = txn.lease](const Result<json>& answer) {
    const Result<TxnAnswer> parsed = answer ? parse_txn(*answer) : Result<TxnAnswer>(answer.error());
    if (!parsed || (!parsed->succeeded && parsed->kvs.empty())) {
      election_.failed(monotonic_ns());
      return step();
    }
    // If the answer to an earlier try was lost, the key exists already, with our lease. Then this control has won.
    const bool won = parsed->succeeded || parsed->kvs[0].lease == lease;
    election_.campaigned(won, parsed->succeeded ? parsed->revision : parsed->kvs[0].create_revision);
    leader_seen_ = std::max(leader_seen_, parsed->revision);
    leader_ = won ? LeaderRecord{options_.node, options_.api} : parse_leader(parsed->kvs[0].value);
    if (won) poll();
    step();
  });
}

void EdgeStore::ask_renewal() {
  const uint64_t sent_ns = monotonic_ns();
  client_.call("/v3/lease/keepalive", {{"ID", std::to_string(election_.lease())}},
               [this, sent_ns](const Result<json>& answer) {
                 const Result<Lease> lease = answer ? parse_keepalive(*answer) : Result<Lease>(answer.error());
                 if (lease) {
                   election_.renewed(sent_ns, lease->ttl_s * kNsPerS);
                 } else {
                   election_.failed(monotonic_ns());
                 }
                 step();
               });
}

bool EdgeStore::leads() const { return ready_ && election_.leads(monotonic_ns()); }

void EdgeStore::settle_role() {
  if (!election_.leads(monotonic_ns())) {
    ready_ = beginning_ = false;
    read_from_ = 0;
    new_checkpoint_.reset();
    writer_.end();
  }
  const bool leads = this->leads();
  if (std::exchange(told_leads_, leads) == leads) return;
  if (leads) {
    elections_.add();
    log_info("this control leads, from write {} on", position_.sequence);
  } else {
    log_warn("this control does not lead any more");
    if (leader_ && leader_->node == options_.node) leader_.reset();  // it is not known yet who leads now
  }
  on_role_(leads);
}

void EdgeStore::step_down(const std::string& why) {
  log_warn("this control gives the lead up: {}", why);
  const uint64_t lease = election_.resign(monotonic_ns() + kPauseAfterStepDownNs);
  settle_role();
  if (lease != 0) client_.call("/v3/lease/revoke", {{"ID", std::to_string(lease)}}, [](const Result<json>&) {});
  step();
}

void EdgeStore::resign(std::function<void()> done) {
  election_.may_lead(false);
  const uint64_t lease = election_.resign(UINT64_MAX);
  settle_role();
  if (lease == 0) return done();
  client_.call("/v3/lease/revoke", {{"ID", std::to_string(lease)}},
               [done = std::move(done)](const Result<json>&) { done(); });
}

// --- questions of others

uint64_t EdgeStore::behind() const {
  return head_ && head_->position.sequence > position_.sequence ? head_->position.sequence - position_.sequence : 0;
}

std::optional<HttpResponse> EdgeStore::refusal() const {
  if (leads()) return std::nullopt;
  if (answers_ && leader_ && election_.create_revision() == 0) {
    return problem(
        421, "not_the_leader",
        fmt::format("node {} leads{}: write there", leader_->node, leader_->api.empty() ? "" : ", at " + leader_->api));
  }
  const std::string why = !answers_           ? "etcd gives no answer (" + silence_ + ")"
                          : !trouble_.empty() ? trouble_
                                              : "an election is under way";
  HttpResponse answer =
      problem(503, "no_leader", fmt::format("nothing is written, because no control leads here: {}", why));
  answer.headers.emplace_back("Retry-After", "1");
  return answer;
}

json EdgeStore::describe() const {
  json self = {{"engine", "etcd"}, {"endpoint", client_.endpoint()}, {"answers", answers_},
               {"leads", leads()}, {"position", position_.sequence}, {"behind", behind()}};
  if (!answers_) self["silence"] = silence_;
  if (!trouble_.empty()) self["trouble"] = trouble_;
  if (leader_) self["leader"] = {{"node", leader_->node}, {"api", leader_->api}};
  if (head_) self["head"] = head_->position.sequence;
  const uint64_t now_ns = monotonic_ns();
  if (election_.leads(now_ns)) self["lease_ms_left"] = (election_.lease_until_ns() - now_ns) / kNsPerMs;
  return self;
}

}  // namespace tidegate::etcd
