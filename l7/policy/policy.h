// SPDX-License-Identifier: Apache-2.0
// Compiled policies. A policy of the document is a bundle of parts (conf/policy); each part compiles to one or more
// Rules: its content (l7/plan/policy_content.h), joined with what the process has learned. Rules are bound to
// everything, to a listener or to a route (l7/plan/policy_bindings.h). The order of Stage decides their order, and not
// the place where they are bound or written. A Chain has the rules of one listener and route in that order.
//
//   on_request: passes, refuses, answers, or waits (then it is asked again); called before the cache is asked. It may
//               wait for some time, or for somebody that it has asked (PolicyUse::call).
//   on_forward: changes the request that goes to the backend, after the cache lookup
//   on_answer:  changes the head that goes to the client, also for cache hits; the stored response is not changed
//
// A request without a client (a revalidation for the cache) has no chain, because the client's request that it repeats
// has already passed.
//
// Ownership: a Plan owns its Policies. The rules of a policy that has not changed belong to the Policies of several
// Plans. What a rule learns (counts, buckets) is a Runtime of the Registry, under a key that survives versions.
// Threads: rules are immutable and shared by all workers. Runtimes are for any thread. The Registry and compiling
// belong to the main thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/model.h"
#include "core/hash.h"
#include "core/ip.h"
#include "core/metrics.h"
#include "l7/exchange/failure.h"
#include "l7/plan/policy_bindings.h"
#include "l7/plan/policy_content.h"

namespace tidegate {
struct LiveState;  // conf/live_state.h
}

namespace tidegate::l7 {

struct Exchange;
struct RequestHead;
struct RouteParameters;
class Arena;
class NameIds;
class Transaction;

namespace policy {

enum class Stage : uint8_t {
  limit,           // before anything that costs more
  networks,        // which addresses may come
  preflight,       // browsers send no credentials with preflights
  maintenance,     // before authentication
  authenticate,    // who the client is
  authorise,       // what it may do
  identity_limit,  // limits by the client's identity
  deadline,        // how long the exchange may take
  concurrency,     // how many requests run at one time
  mock,            // an answer in place of the backend's
  fault,           // delays and aborts on purpose
  aggregate,       // an answer made of several backends' answers
  split,           // which pool gets the request
  mirror,          // whether a copy goes to another pool
  transform,       // changes of the request, after the cache lookup, when a backend is asked
  compress,        // at the answer, before fields are added to it
  answer,          // only at the answer
};
const char* name(Stage stage);

enum class RuleVerdict : uint8_t {
  none,  // not asked
  passed,
  exempt,  // the rule does not apply to this client
  waited,  // passed after a wait
  refused,
  answered,  // the rule itself has the answer
  count_,
};
const char* name(RuleVerdict verdict);

// The result of a rule for a request.
struct RuleDecision {
  RuleVerdict verdict = RuleVerdict::passed;
  Failure failure = Failure::none;  // if refused: how the request ends
  uint64_t wait_until_ns = 0;       // not 0: ask again at this monotonic time; `verdict` does not count yet
  const char* detail = "";          // if refused: for the log
  bool waits = false;               // ask again when PolicyUse::call makes progress; `verdict` does not count yet
  bool buffered = false;            // if answered: the body is in Transaction::answer_buffer(), not in `body`
  // if answered, or refused with another status than the failure's; 0: the failure's status
  uint16_t status = 0;
  // Set if the rule has answered, or refuses with another text than the failure's sentence. Views of the rule or of the
  // arena.
  std::string_view body = {}, content_type = {};
};

// Something that a rule has started for one exchange, such as a question to a service. To destroy the Call ends it, at
// any time. When the Call makes progress, it runs the transaction again, and the rule is asked again.
class Call {
 public:
  Call() = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  virtual ~Call() = default;
};

// The values that a rule stores in one exchange, from its request to its answer. Initially all zero.
struct Note {
  std::array<uint64_t, 3> values;
  uint64_t wait_until_ns;  // not 0: it has waited, or is still waiting
  RuleVerdict verdict;
};

// The number of times that a rule gave each verdict.
class VerdictCounts {
 public:
  void add(RuleVerdict verdict) {
    const size_t index = metric_thread_index();
    Slot& slot = slots_[index < kMaxMetricThreads ? index : kMaxMetricThreads - 1];
    add_to_slot(slot.counts[static_cast<size_t>(verdict)], index, 1);
  }
  uint64_t of(RuleVerdict verdict) const {
    uint64_t sum = 0;
    for (const Slot& slot : slots_) sum += slot.counts[static_cast<size_t>(verdict)].load(std::memory_order_relaxed);
    return sum;
  }

 private:
  struct alignas(64) Slot {
    std::array<std::atomic<uint64_t>, static_cast<size_t>(RuleVerdict::count_)> counts{};
  };
  std::array<Slot, kMaxMetricThreads> slots_;
};

// State that a rule has learned.
struct Runtime {
  virtual ~Runtime() = default;
};

struct CodingCounts;   // compress.h
struct DeadlineTerms;  // deadline.h
struct MirrorTerms;    // mirror.h
class MirrorPair;      // mirror.h

class Registry {
 public:
  // Returns the object of the key: the same object as long as a Plan uses it. `key` begins with the policy's name and
  // the kind.
  template <class T, class... Arguments>
  std::shared_ptr<T> get(const std::string& key, Arguments&&... arguments) {
    std::shared_ptr<Runtime>& entry = entries_[key];
    if (entry == nullptr) entry = std::make_shared<T>(std::forward<Arguments>(arguments)...);
    return std::static_pointer_cast<T>(entry);
  }
  // Null if there is none.
  template <class T>
  std::shared_ptr<T> find(const std::string& key) const {
    const auto entry = entries_.find(key);
    return entry == entries_.end() ? nullptr : std::static_pointer_cast<T>(entry->second);
  }
  // Forgets runtimes that no Plan uses. Call it when a Plan was adopted.
  void trim() {
    std::erase_if(entries_, [](const auto& entry) { return entry.second.use_count() == 1; });
  }

 private:
  std::map<std::string, std::shared_ptr<Runtime>> entries_;
};

// The client and the request, as rules and explain see them. Borrowed for a call.
struct Subject {
  const RequestHead& request;
  std::string_view client;  // its address as text
  std::string_view route;   // its name; empty: no route matches
  std::string_view identity = {};
  const RouteParameters* parameters = nullptr;  // of the path; null: not known
  std::string_view claims = {};                 // claims of its token, as JSON; empty: there is no token
  std::string_view pool = {};                   // pool of the route; empty: it has none
};

// A sample of a metric family that only one kind of rule has.
struct Sample {
  const char* family;
  const char* type;
  const char* help;
  uint64_t value;
  const char* label = nullptr;  // a label in addition to "policy"
  const char* label_value = "";
};

class Rule {
 public:
  Rule(Stage its_stage, std::string its_policy, const char* its_kind, Registry& registry);
  Rule(const Rule&) = delete;
  Rule& operator=(const Rule&) = delete;
  virtual ~Rule() = default;

  virtual RuleDecision on_request(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns) const = 0;
  virtual void on_answer(Exchange& exchange, Arena& arena, const Note& note) const = 0;
  // Called if the rule `forwards`, when a backend is asked for the first time in the exchange. It changes
  // Exchange::outgoing, and passes or refuses. It is also called for an exchange without a client (a revalidation),
  // which has no notes.
  virtual RuleDecision on_forward(Exchange& exchange, Arena& arena) const {
    static_cast<void>(exchange), static_cast<void>(arena);
    return {};
  }
  virtual bool forwards() const { return false; }
  // The exchange is over. Called once for each request that was asked, if the rule has `watches_end`.
  virtual void on_end(const Exchange& exchange, const Note& note, uint64_t now_ns) const {
    static_cast<void>(exchange), static_cast<void>(note), static_cast<void>(now_ns);
  }
  virtual bool watches_end() const { return false; }
  // A request of this client will be asked about soon, if the rule `foresees`: has the memory fetched that the decision
  // reads. Called before on_request, perhaps needlessly. Changes nothing.
  virtual void foresee(const IpAddress& client) const { static_cast<void>(client); }
  virtual bool foresees() const { return false; }
  // Adds the rule's settings and its verdict on a request now. The request is not counted.
  virtual void explain(const Subject& subject, uint64_t now_ns, nlohmann::json& out) const = 0;
  // True if a request that this rule passes counts as allowed where a listener denies by default.
  virtual bool allows() const { return false; }
  // True if the rule answers preflights. Then a preflight takes the route of the request that it asks for.
  virtual bool answers_preflights() const { return false; }
  virtual void add_samples(std::vector<Sample>& out) const { static_cast<void>(out); }
  // Gives what records of requests name of it a number; before the Plan is published.
  virtual void number_names(NameIds& names) { static_cast<void>(names); }

  void count(RuleVerdict verdict) const { counts_->add(verdict); }
  const VerdictCounts& counts() const { return *counts_; }

  const Stage stage;
  const std::string policy;  // name of the policy
  const char* const kind;

 private:
  std::shared_ptr<VerdictCounts> counts_;
};

struct Chain {
  std::vector<const Rule*> rules;  // sorted by stage
  bool answers_preflights = false;
  bool watches_end = false;  // one of the rules has watches_end
  bool forwards = false;     // one of the rules forwards
  uint32_t name = 0;         // of NameIds: "per-client.limit,office.authorise", for records of requests
};

class KeySource;  // key_source.h

// A source of keys that a policy uses, and how often it wants them fetched.
struct KeySourceUse {
  std::shared_ptr<KeySource> source;
  uint64_t refresh_ms;
};

// Used while a policy is compiled.
struct Compiling {
  const std::string& policy;
  const PolicyContent& content;  // of this policy
  const HashKey& key;
  Registry& registry;
  std::vector<std::unique_ptr<Rule>>& rules;  // the part adds its rules here
  // the part adds the sources that must be fetched here
  std::vector<KeySourceUse>* key_sources = nullptr;
  const Model* model = nullptr;           // the whole Model, for references of a part
  const LiveState* live_state = nullptr;  // what operators changed; null: nothing
  bool reads_files = false;               // set by a part that reads files of this host, which may change at any time
};

// The rules of one policy, and what they were made of. Everything else is the same as long as the process runs.
struct CompiledPolicy {
  std::vector<std::unique_ptr<Rule>> rules;
  std::vector<KeySourceUse> key_sources;
  std::shared_ptr<const PolicyContent> content;
  std::optional<std::pair<uint64_t, uint64_t>> quota;  // requests and burst that an operator set
  bool reads_files = false;                            // made of files too
  bool numbered = false;                               // number_names() was called for its rules
};

class Policies {
 public:
  struct Inputs {
    const Model& model;
    const PolicyContents& contents;  // parallel to Model::policies
    std::shared_ptr<const PolicyBindings> bindings;
    const LiveState& live_state;
    const HashKey& key;
  };
  Policies() = default;
  // Takes the rules of policies that have not changed from `previous`, whose Model is `before`. Both may be null.
  Policies(const Inputs& inputs, Registry& registry, const Policies* previous = nullptr, const Model* before = nullptr);

  // Null if no policy is bound there. `listener` and `route` are indexes in the Model, or kNone.
  const Chain* chain(uint32_t listener, uint32_t route) const {
    return chains_.empty() ? nullptr : find(listener, route);
  }
  // A request has come, and its route will be looked up now. Meanwhile the memory is prefetched that rules need which
  // hold on every route of the listener.
  void foresee(uint32_t listener, const IpAddress& client) const {
    if (foreseeing_.empty()) return;
    for (const Rule* rule : foreseeing_[PolicyBindings::set_of(bindings_->set_of_listener, listener)]) {
      rule->foresee(client);
    }
  }
  // True if a rule of any chain answers preflights.
  bool answers_preflights() const { return answers_preflights_; }
  // The sources that must be fetched for them.
  std::vector<KeySourceUse> key_sources() const;
  // Gives each chain, and what rules name, a number; before the Plan is published.
  void number_names(NameIds& names);
  // Prometheus text: the verdicts of every rule, and what their kinds add.
  void append_metrics(std::string& out) const;

 private:
  const Chain* find(uint32_t listener, uint32_t route) const;
  void compile(const Inputs& inputs, Registry& registry, const Policies* previous, const Model* before);
  void build_chains();
  Chain make_chain(const PolicyBindings::List& bound) const;
  void find_foreseeing();
  template <class Fn>
  void for_each_rule(Fn fn) const;

  std::shared_ptr<const PolicyBindings> bindings_;
  std::vector<std::shared_ptr<CompiledPolicy>> compiled_;  // parallel to Model::policies; empty: nothing is bound
  std::unique_ptr<const Rule> default_deny_;               // null: no listener denies by default
  bool answers_preflights_ = false;
  std::vector<std::vector<const Rule*>> foreseeing_;  // by set of the listener; empty: no rule does
  std::vector<Chain> chains_;                         // parallel to PolicyBindings::lists
};

}  // namespace policy

// The client's identity from authenticate. The texts are in the pinned plan or in the arena.
struct Identity {
  std::string_view name;  // empty: not known
  const std::string_view* roles = nullptr;
  size_t role_count = 0;
  std::string_view claims = {};  // claims of its token, as JSON; empty: there is no token
};

// The state of an exchange for its policies.
struct PolicyUse {
  const policy::Chain* chain = nullptr;  // in the pinned plan; null: no policy is bound
  policy::Note* notes = nullptr;         // one for each rule, in the arena
  size_t next = 0;                       // the rule to ask next
  Identity identity;
  Transaction* transaction = nullptr;  // the transaction of the exchange, for calls, which run it again
  // call of the rule at `next`; it is cancelled when that rule has decided, or when the exchange ends before
  std::unique_ptr<policy::Call> call;
};

}  // namespace tidegate::l7
