// SPDX-License-Identifier: Apache-2.0
// What is recorded about a request when it has ended (observe/request_records.h). This runs for every request, so it
// only copies numbers.
#include <algorithm>
#include <cstring>

#include "l7/exchange/transaction.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

// `rest` gets the bytes after the first sixteen.
template <class Value, class Rest>
void copy_words(const Value& value, std::array<SharedField<uint64_t>, 2>& to, Rest& rest) {
  static_assert(std::is_trivially_copyable_v<Value> && sizeof(Value) == sizeof(uint64_t[2]) + sizeof(Rest));
  uint64_t words[2];
  std::memcpy(words, &value, sizeof words);
  to[0] = words[0];
  to[1] = words[1];
  std::memcpy(&rest, reinterpret_cast<const char*>(&value) + sizeof words, sizeof rest);
}

// Each of these is called once, so that the compiler inlines all of them into one function.
void record_addresses(const Exchange& exchange, RecordSlot& record) {
  const ClientFacts& facts = exchange.facts;
  uint32_t rest = 0;
  copy_words(facts.peer, record.peer, rest);
  record.peer_rest = rest;
  rest = 0;
  if (facts.destination != nullptr) {
    copy_words(*facts.destination, record.destination, rest);
  } else {
    record.destination[0] = 0;  // no family
  }
  record.destination_rest = rest;
  if (!facts.peer_trusted) {
    record.client[0] = 0;
    return;
  }
  uint8_t client_rest = 0;
  copy_words(exchange.named_client, record.client, client_rest);
  record.client_rest = client_rest;
}

void record_cache(const Exchange& exchange, RecordSlot& record) {
  const CacheUse& use = exchange.cache;
  record.cache_answer = use;
  if (!use.asked) return;
  record.cache_flags = use.status;
  record.cache_detail = use.status.detail;
  record.forward_status = use.status.forward_status;
}

void record_backend(const Exchange& exchange, RecordSlot& record) {
  const Attempts& attempts = exchange.attempts;
  record.tries = static_cast<uint16_t>(attempts.count);  // bounded by retry_attempts and the addresses of a server
  if (exchange.pool == nullptr) {
    record.pool = 0;
    return;
  }
  record.pool = exchange.pool->runtime().name;
  if (attempts.count == 0) return;
  record.failed_tries = attempts.recorded_tries;
  record.backend = attempts.backend_name_id;
  record.chosen_by = attempts.chosen_by;
  record.first_byte_ns = exchange.timing.first_byte_ns;
  record.pool_policy = exchange.pool->config().policy;
  record.members = static_cast<uint32_t>(exchange.pool->members().size());
  for (size_t i = 0; i < attempts.recorded_tries; ++i) {
    record.failed_backends[i] = attempts.failed_tries[i].backend_name_id;
    record.failures[i] = attempts.failed_tries[i].failure;
  }
}

void record_policies(const Exchange& exchange, RecordSlot& record) {
  const PolicyUse& use = exchange.policies;
  if (use.chain == nullptr) {
    record.policies = 0;
    return;
  }
  uint64_t verdicts = 0;
  const size_t count = std::min(use.chain->rules.size(), kRecordedVerdicts);
  for (size_t i = 0; i < count; ++i) verdicts |= static_cast<uint64_t>(use.notes[i].verdict) << (4 * i);
  static_assert(static_cast<size_t>(policy::RuleVerdict::count_) <= 16, "a verdict has four bits");
  record.policies = use.chain->name;
  record.verdicts = verdicts;
}

}  // namespace

void Transaction::remember(uint64_t now_ns) {
  RequestKey key = exchange_.request_key;
  if (key[0] == 0) key = key_of_given_id(exchange_.request_id);
  RequestRing& ring = *worker_.request_ring();
  RecordSlot& record = ring.next(key[0]);
  record.key_low = key[1];
  record.started_ns = exchange_.timing.started_ns;
  record.ended_ns = now_ns;
  record.queued_ns = exchange_.timing.queued_ns;
  record.end = exchange_.outcome;
  record.whose = exchange_;
  record.listener = exchange_.facts.listener_number;
  record.route = exchange_.route_number;
  record.version = exchange_.plan->version();  // a connection always has a plan
  record.live_state = exchange_.plan->live_state();
  record_addresses(exchange_, record);
  record_policies(exchange_, record);
  record.variant = exchange_.variant_number;
  record_cache(exchange_, record);
  record_backend(exchange_, record);
  ring.publish();
}

}  // namespace tidegate::l7
