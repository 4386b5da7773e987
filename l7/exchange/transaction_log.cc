// SPDX-License-Identifier: Apache-2.0
// What the access log says about a request when it has ended.
#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/observe/access_log.h"
#include "l7/worker.h"

namespace tidegate::l7 {

void Transaction::write_access_log(uint64_t now_ns) {
  const Exchange& exchange = exchange_;
  const bool failed = exchange.outcome.failure != Failure::none;
  AccessRecord record;
  record.realtime_ns = realtime_ns();
  record.request_id = exchange.request_id;
  record.client = exchange.client_address;
  record.method = exchange.request.method;
  record.host = exchange.request.host;
  record.path = exchange.request.path;
  record.query = exchange.request.query;
  record.version = exchange.request.version;
  record.status = exchange.outcome.status;
  if (exchange.tunnel) record.upgrade = exchange.request.upgrade;
  record.failure = exchange.outcome.failure;
  if (failed) record.failure_detail = failure_detail_;
  record.request_line = exchange.outcome.request_line;
  record.request_bytes = exchange.outcome.request_bytes;
  record.response_bytes = exchange.outcome.response_bytes;
  record.tries = exchange.attempts.count;
  record.backend = exchange.attempts.backend_name;
  if (exchange.policies.chain != nullptr) {
    record.policies = words_of_policies();
    record.identity = exchange.policies.identity.name;
  }
  if (exchange.cache.asked) record.cache = cache::name(exchange.cache.outcome);
  if (exchange.coding.chosen != Coding::identity) {
    record.content_coding = tidegate::name(exchange.coding.chosen);
    record.coding_stored = exchange.coding.stored;
  }
  record.background = exchange.background;
  record.config_version = exchange.plan->plan().snapshot->version;
  if (exchange.route != nullptr) record.route = exchange.route->name;
  if (exchange.pool != nullptr) record.pool = exchange.pool->config().name;
  if (exchange.outgoing != nullptr && exchange.outgoing->path != exchange.request.path) {
    record.backend_path = exchange.outgoing->path;
  }
  record.variant = exchange.variant;
  if (const Field* agent = exchange.request.fields.find("user-agent")) record.user_agent = agent->value;
  record.request_fields = &exchange.request.fields;
  record.response_fields = exchange.logged_fields;
  if (client_ != nullptr) log_client(record);
  log_times(record, now_ns);
  worker_.write_log(record);
}

// The head goes to the client now. Its fields may be views of a backend's buffer, which will be gone at the end.
void Transaction::keep_logged_fields() {
  const std::vector<std::string>& names = worker_.logged_response_fields();
  if (names.empty()) return;
  auto* const kept = reinterpret_cast<Field*>(arena_.allocate_aligned(names.size() * sizeof(Field)));
  size_t count = 0;
  for (const std::string& name : names) {
    const Field* const field = exchange_.response.fields.find(name);
    if (field != nullptr) new (&kept[count++]) Field{name, arena_.copy(field->value)};
  }
  exchange_.logged_fields = {kept, count};
}

void Transaction::log_client(AccessRecord& record) const {
  const ClientFacts& facts = exchange_.facts;
  record.peer = facts.peer_text;
  record.listener = facts.listener_name;
  record.tls_version = facts.tls_version;
  record.tls_resumed = facts.tls_resumed;
  record.handshake_ns = facts.handshake_ns;
  if (facts.certificate == nullptr) return;
  record.certificate = facts.certificate->spiffe.empty() ? facts.certificate->subject : facts.certificate->spiffe;
  record.certificate_serial = facts.certificate->serial;
}

void Transaction::log_times(AccessRecord& record, uint64_t now_ns) const {
  const Timing& timing = exchange_.timing;
  const auto since_start = [&timing](uint64_t at_ns) { return at_ns == 0 ? 0 : at_ns - timing.started_ns; };
  record.policies_ns = timing.policies_ns;
  record.queued_ns = timing.queued_ns;
  if (timing.tcp_connected_ns > timing.connecting_since_ns) {
    record.connect_ns = timing.tcp_connected_ns - timing.connecting_since_ns;
    if (timing.connected_ns > timing.tcp_connected_ns) {
      record.backend_tls_ns = timing.connected_ns - timing.tcp_connected_ns;
    }
  }
  record.connected_ns = since_start(timing.connected_ns);
  record.first_byte_ns = since_start(timing.first_byte_ns);
  record.total_ns = now_ns - timing.started_ns;
}

}  // namespace tidegate::l7
