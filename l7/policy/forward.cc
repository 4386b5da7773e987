// SPDX-License-Identifier: Apache-2.0
// authenticate: forward. A service is asked about each request, and the request waits for its answer. 2xx lets it pass,
// one of `refusals` ends it with the service's own answer, and everything else is a failure.
//
//   on_request → remembered (Grants), or ask() → waits → settle() → admit() | refuse() | failed()
//
// A request without a client (a revalidation, a mirror's copy) asks nobody: the one that it repeats has passed.
// A yes is kept as a "grant": lines of text, the name, the roles, and "Avalue" for each field that the backend gets,
// where A counts the names of `to_backend`. The values of fields have no line breaks. Runtime: the counts, and what is
// remembered. The remembered answers are dropped if a new version changes who is asked, the question, which parts of
// the answer are used, or for how long.
#include "l7/policy/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "l7/exchange/backend_call.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/sticky.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/policy/grants.h"
#include "l7/policy/names.h"

namespace tidegate::l7::policy {
namespace {

struct Counts final : Runtime {
  Counter asked, remembered, failed, bodies_dropped;
};

// A field by its two spellings.
struct Name {
  explicit Name(const std::string& its_spelt) : spelt(its_spelt), lower(lower_case(its_spelt)) {}
  std::string spelt, lower;
};
std::vector<Name> names_of(const std::vector<std::string>& texts) { return {texts.begin(), texts.end()}; }

// A name is short printable ASCII, because it goes into logs and into a field for backends.
bool is_name(std::string_view text) {
  return text.size() <= kTokenNameBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < '\x7f'; });
}

// Takes the next line off.
std::string_view take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

class ForwardRule final : public Rule {
 public:
  ForwardRule(const AuthenticatePolicy& authenticate, Compiling& out)
      : Rule(Stage::authenticate, out.policy, "forward", out.registry),
        forward_(authenticate.forward),
        keep_credentials_(authenticate.keep_credentials),
        identity_(authenticate.identity_header),
        name_(lower_case(forward_.name_header)),
        roles_(lower_case(forward_.roles_header)),
        request_headers_(names_of(forward_.request_headers)),
        to_backend_(names_of(forward_.to_backend)),
        to_client_(names_of(forward_.to_client)),
        by_(out.content.authenticate->forward_cache_by),
        pool_name_(out.model->pools[forward_.pool].name),
        counts_(out.registry.get<Counts>(fmt::format("{}/forward/counts", out.policy))) {
    if (!forward_.host.empty()) edits_.emplace_back("Host", forward_.host);
    const size_t mark = forward_.path.find('?');
    path_ = forward_.path.substr(0, mark);
    has_query_ = mark != std::string::npos;
    if (has_query_) query_ = forward_.path.substr(mark + 1);
    if (forward_.cache_ttl_ms == 0) return;
    grants_ =
        out.registry.get<Grants>(fmt::format("{}/forward/grants/{}", out.policy, question()), forward_.cache_entries);
  }

  RuleDecision on_request(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns) const override {
    PolicyUse& use = exchange.policies;
    if (use.call == nullptr) {
      remove_imitations(exchange.request.fields, identity_.lower);
      if (grants_ != nullptr) {
        const std::string_view told = told_of(exchange, arena);
        note.values[kTold] =
            reinterpret_cast<uint64_t>(new (arena.allocate_aligned(sizeof told)) std::string_view(told));
        if (const std::optional<std::string_view> grant = grants_->find(told, now_ns, arena)) {
          counts_->remembered.add();
          return admit(exchange, arena, *grant);
        }
      }
      if (is_loop(exchange)) return refused(Failure::loop_detected, "forward_loop");
      ask(exchange, arena);
    }
    auto& call = static_cast<BackendCall&>(*use.call);
    call.advance();
    if (!call.over()) return {.waits = true};
    return settle(exchange, arena, note, call, now_ns);
  }

  // Adds what the service told the client with its refusal.
  void on_answer(Exchange& exchange, Arena&, const Note& note) const override {
    if (note.verdict != RuleVerdict::refused || note.values[kRefusal] == 0) return;
    const auto& told = *reinterpret_cast<const FieldSpan*>(note.values[kRefusal]);
    for (const Field& field : told) exchange.response.fields.add(field);
  }

  void explain(const Subject&, uint64_t, nlohmann::json& out) const override {
    out["asks"] = pool_name_;
    out["path"] = forward_.path;
    out["timeout_ms"] = forward_.timeout_ms;
    out["on_failure"] =
        forward_.on_failure == ForwardAuth::OnFailure::pass ? "pass" : fmt::format("{}", forward_.failure_status);
    if (grants_ != nullptr) {
      out["remembers_ms"] = forward_.cache_ttl_ms;
      out["remembers_by"] = cache_words(forward_);
    }
  }

  void add_samples(std::vector<Sample>& out) const override {
    out.push_back({"tidegate_l7_forward_asks_total", "counter", "Requests about which a service was asked",
                   counts_->asked.value()});
    out.push_back({"tidegate_l7_forward_remembered_total", "counter",
                   "Requests that passed by what a service said before", counts_->remembered.value()});
    out.push_back({"tidegate_l7_forward_failures_total", "counter",
                   "Questions that a service did not answer, or not well", counts_->failed.value()});
    out.push_back({"tidegate_l7_forward_bodies_dropped_total", "counter",
                   "Refusals of a service whose body was too large to be passed on", counts_->bodies_dropped.value()});
  }

 private:
  // Places in Note::values: pointers into the arena.
  enum : size_t { kTold, kRefusal };

  static RuleDecision refused(Failure failure, const char* detail) {
    return {.verdict = RuleVerdict::refused, .failure = failure, .detail = detail};
  }

  // If two versions give the same text, answers that were remembered under the first version are valid under the second
  // one.
  std::string question() const {
    const ForwardAuth& f = forward_;
    return sha256_hex(fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}", pool_name_, f.cache_ttl_ms, f.path, f.host,
                                  fmt::join(f.request_headers, ","), fmt::join(f.to_backend, ","), f.name_header,
                                  f.roles_header, fmt::join(f.cache_by, ","), f.cache_entries));
  }

  // The service's backends may lead back to this proxy, where the same policy applies.
  static bool is_loop(const Exchange& exchange) {
    const std::string& node = exchange.plan->plan().this_node().name;
    return exchange.facts.via && own_via_entries(exchange.request, node) >= kOwnViaEntries;
  }

  void ask(Exchange& exchange, Arena& arena) const {
    const Plan& plan = exchange.plan->plan();
    const RequestHead& request = exchange.request;
    auto call = std::make_unique<BackendCall>(
        *exchange.policies.transaction, arena,
        BackendCall::Terms{
            .pool = *plan.pools[forward_.pool],
            .tls = exchange.plan->pool_tls(forward_.pool),
            .edits = edits_,
            .facts = exchange.facts,
            .client = exchange.client_address,
            .priority = exchange.queue_priority(),
            .via_node = exchange.facts.via ? std::string_view(plan.this_node().name) : std::string_view(),
            .request_id = exchange.request_id,
            .timeout_ns = forward_.timeout_ms * kNsPerMs});
    RequestHead& question = call->request();
    question.method = "GET";
    question.authority = request.authority;
    question.host = request.host;
    question.path = path_;
    question.query = query_;
    question.has_query = has_query_;
    question.version = request.version;
    FieldList& fields = question.fields;
    for (const Field& field : request.fields) {
      const bool trusted = field.kind == FieldKind::x_forwarded_proto || field.kind == FieldKind::x_forwarded_host;
      const auto named = [&field](const Name& name) { return name.lower == field.name; };
      const bool ours = field.name == "x-forwarded-method" || field.name == "x-forwarded-uri";
      if (ours) continue;  // the client's own would say something else
      if (trusted || std::any_of(request_headers_.begin(), request_headers_.end(), named)) fields.add(field);
    }
    // The fields Via are passed on: our own entries in them show a loop.
    for (const Field& field : request.fields) {
      if (field.kind == FieldKind::via) fields.add(field);
    }
    fields.add_own("X-Forwarded-Method", "x-forwarded-method", request.method, FieldKind::other);
    fields.add_own("X-Forwarded-Uri", "x-forwarded-uri", target_of(request, arena), FieldKind::other);
    counts_->asked.add();
    call->begin();
    exchange.policies.call = std::move(call);
  }

  static std::string_view target_of(const RequestHead& request, Arena& arena) {
    if (!request.has_query) return request.path;
    char* const text = arena.allocate(request.path.size() + 1 + request.query.size());
    char* end = std::copy(request.path.begin(), request.path.end(), text);
    *end++ = '?';
    end = std::copy(request.query.begin(), request.query.end(), end);
    return {text, static_cast<size_t>(end - text)};
  }

  RuleDecision settle(Exchange& exchange, Arena& arena, Note& note, const BackendCall& call, uint64_t now_ns) const {
    if (call.failure() != Failure::none) return failed(exchange, info(call.failure()).name);
    const ResponseHead& response = call.response();
    if (response.status >= 200 && response.status < 300) {
      const std::optional<std::string_view> grant = grant_of(response, arena);
      if (!grant) return failed(exchange, "name_malformed");
      if (grants_ != nullptr) {
        const auto& told = *reinterpret_cast<const std::string_view*>(note.values[kTold]);
        grants_->add(told, *grant, now_ns + forward_.cache_ttl_ms * kNsPerMs);
      }
      return admit(exchange, arena, *grant);
    }
    if (std::find(forward_.refusals.begin(), forward_.refusals.end(), response.status) == forward_.refusals.end()) {
      const std::string words = fmt::format("status_{}", response.status);
      return failed(exchange, arena.copy({words.c_str(), words.size() + 1}).data());
    }
    return refuse(arena, note, call);
  }

  RuleDecision failed(Exchange& exchange, const char* detail) const {
    counts_->failed.add();
    if (forward_.on_failure == ForwardAuth::OnFailure::pass) {
      remove_fields_of_the_service(exchange.request.fields);
      return {};
    }
    return {.verdict = RuleVerdict::refused,
            .failure = Failure::auth_unavailable,
            .detail = detail,
            .status = static_cast<uint16_t>(forward_.failure_status)};
  }

  RuleDecision refuse(Arena& arena, Note& note, const BackendCall& call) const {
    const ResponseHead& response = call.response();
    auto* const span = new (arena.allocate_aligned(sizeof(FieldSpan))) FieldSpan{};
    auto* const fields = reinterpret_cast<Field*>(arena.allocate_aligned(response.fields.size() * sizeof(Field)));
    for (const Field& field : response.fields) {
      const auto named = [&field](const Name& name) { return name.lower == field.name; };
      if (std::any_of(to_client_.begin(), to_client_.end(), named)) new (&fields[span->count++]) Field(field);
    }
    span->fields = fields;
    note.values[kRefusal] = reinterpret_cast<uint64_t>(span);
    if (call.body_dropped()) counts_->bodies_dropped.add();
    const Field* const type = response.fields.find("content-type");
    return {.verdict = RuleVerdict::refused,
            .failure = response.status == 403 ? Failure::forbidden : Failure::unauthenticated,
            .detail = "service",
            .status = response.status,
            .body = arena.copy(call.body()),
            .content_type = type == nullptr ? std::string_view("text/plain; charset=utf-8") : type->value};
  }

  // Returns nothing if the name cannot go into logs and fields.
  std::optional<std::string_view> grant_of(const ResponseHead& response, Arena& arena) const {
    fmt::memory_buffer text;
    const auto line = [&text](std::string_view value) {
      text.append(value.data(), value.data() + value.size());
      text.push_back('\n');
    };
    const Field* const name = name_.empty() ? nullptr : response.fields.find(name_);
    if (name != nullptr && !is_name(name->value)) return std::nullopt;
    line(name == nullptr ? std::string_view() : name->value);
    const Field* const roles = roles_.empty() ? nullptr : response.fields.find(roles_);
    line(roles == nullptr ? std::string_view() : roles->value);
    for (const Field& field : response.fields) {
      for (size_t i = 0; i < to_backend_.size(); ++i) {
        if (to_backend_[i].lower != field.name) continue;
        text.push_back(static_cast<char>('A' + i));
        line(field.value);
      }
    }
    return arena.copy({text.data(), text.size()});
  }

  // For each request that passes, also if the service failed: only the service says what these fields hold.
  void remove_fields_of_the_service(FieldList& fields) const {
    if (!keep_credentials_) fields.remove_named("authorization");
    for (const Name& own : to_backend_) remove_imitations(fields, own.lower);
  }

  RuleDecision admit(Exchange& exchange, Arena& arena, std::string_view grant) const {
    FieldList& fields = exchange.request.fields;
    remove_fields_of_the_service(fields);
    const std::string_view name = take_line(grant);
    const std::string_view roles = take_line(grant);
    if (!name.empty()) {
      exchange.policies.identity = identity_of(name, roles, arena);
      if (!identity_.lower.empty()) fields.add({identity_.lower, name, FieldKind::other, false, identity_.spelt});
    }
    while (!grant.empty()) {
      const std::string_view line = take_line(grant);
      const Name& own = to_backend_[static_cast<size_t>(line[0] - 'A')];
      fields.add({own.lower, line.substr(1), FieldKind::other, false, own.spelt});
    }
    return {};
  }

  static Identity identity_of(std::string_view name, std::string_view roles, Arena& arena) {
    auto* const list = reinterpret_cast<std::string_view*>(arena.allocate_aligned(kForwardedRoles * sizeof(roles)));
    size_t count = 0;
    http1::for_each_element(roles, [&](std::string_view role) {
      if (count < kForwardedRoles) new (&list[count++]) std::string_view(role);
    });
    return {name, list, count};
  }

  // The text under which the answer is remembered. Each part has its length before it, so two different requests never
  // have the same text.
  std::string_view told_of(const Exchange& exchange, Arena& arena) const {
    size_t bytes = 0;
    each_part(exchange, [&bytes](std::string_view part) { bytes += sizeof(uint32_t) + part.size(); });
    char* const text = arena.allocate(bytes);
    char* end = text;
    each_part(exchange, [&end](std::string_view part) {
      const auto length = static_cast<uint32_t>(part.size());
      end = std::copy_n(reinterpret_cast<const char*>(&length), sizeof length, end);
      end = std::copy(part.begin(), part.end(), end);
    });
    return {text, bytes};
  }

  template <class With>
  void each_part(const Exchange& exchange, With with) const {
    using What = ForwardCacheBy::What;
    const RequestHead& request = exchange.request;
    for (const ForwardCacheBy& by : by_) {
      switch (by.what) {
        case What::method:
          with(request.method);
          break;
        case What::host:
          with(request.authority);
          with(client_scheme(request, exchange.facts));
          each_value(request, with, [](const Field& field) {
            return field.kind == FieldKind::x_forwarded_host ? std::optional(field.value) : std::nullopt;
          });
          break;
        case What::path:
          with(request.path);
          break;
        case What::query:
          with(request.has_query ? "?" : "");
          with(request.query);
          break;
        case What::client:
          with(exchange.client_address);
          break;
        case What::header:
          each_value(request, with, [&](const Field& field) {
            return field.name == by.name ? std::optional(field.value) : std::nullopt;
          });
          break;
        case What::cookie:
          each_value(request, with, [&](const Field& field) {
            return field.kind == FieldKind::cookie ? std::optional(cookie_of(field.value, by.name)) : std::nullopt;
          });
          break;
      }
    }
  }
  // Writes how many there are, and then each one.
  template <class With, class ValueOf>
  static void each_value(const RequestHead& request, With& with, ValueOf value_of) {
    uint32_t count = 0;
    for (const Field& field : request.fields) count += value_of(field) ? 1 : 0;
    with({reinterpret_cast<const char*>(&count), sizeof count});
    for (const Field& field : request.fields) {
      if (const std::optional<std::string_view> value = value_of(field)) with(*value);
    }
  }

  const ForwardAuth forward_;
  const bool keep_credentials_;
  const Name identity_;
  const std::string name_, roles_;
  const std::vector<Name> request_headers_, to_backend_, to_client_;
  FieldEdits edits_;
  std::string path_, query_;
  bool has_query_ = false;
  const std::vector<ForwardCacheBy> by_;
  const std::string pool_name_;
  const std::shared_ptr<Counts> counts_;
  std::shared_ptr<Grants> grants_;  // null: nothing is remembered
};

}  // namespace

std::unique_ptr<Rule> make_forward_rule(const AuthenticatePolicy& authenticate, Compiling& out) {
  return std::make_unique<ForwardRule>(authenticate, out);
}

}  // namespace tidegate::l7::policy
