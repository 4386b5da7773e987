// SPDX-License-Identifier: Apache-2.0
#include "l7/listener/admission.h"

#include <algorithm>

#include "core/limits.h"
#include "core/open_files.h"
#include "l7/limits.h"
#include "l7/listener/client_connection.h"

namespace tidegate::l7 {

AdmissionShared::AdmissionShared(const HashKey& key) : addresses(kTrackedAddresses, key) {}

void AdmissionShared::configure(const L7Node& node) {
  max_connections.store(node.max_connections, std::memory_order_relaxed);
  const uint64_t share = node.max_connections_per_client != 0 ? node.max_connections_per_client
                                                              : std::max<uint64_t>(1, node.max_connections / 4);
  per_address.store(static_cast<uint32_t>(share), std::memory_order_relaxed);
  const TokenRate rate = TokenRate::per_second(node.connection_rate_per_client, node.connection_burst_per_client);
  rate_interval_ns.store(rate.interval_ns, std::memory_order_relaxed);
  burst.store(rate.burst, std::memory_order_relaxed);
}

TokenRate AdmissionShared::rate() const {
  return {rate_interval_ns.load(std::memory_order_relaxed), burst.load(std::memory_order_relaxed)};
}

AdmissionShared::AddressView AdmissionShared::look(const IpAddress& address, uint64_t now_ns) const {
  const AddressTable::View view = addresses.look(address, rate(), now_ns);
  return {view.held, per_address.load(std::memory_order_relaxed), view.tokens};
}

ConnectionRefusal Admission::admit_address(const Newcomer& newcomer, AddressTable::Hold& hold) {
  if (!shared_.addresses.take(newcomer.address, shared_.rate(), 1, newcomer.now_ns)) {
    return ConnectionRefusal::client_rate;
  }
  const uint32_t at_most = shared_.per_address.load(std::memory_order_relaxed);
  std::optional<AddressTable::Hold> held = shared_.addresses.hold(newcomer.address, at_most, newcomer.now_ns);
  // The address's own idle connections make room first. So idle connections of other clients at the same address do not
  // lock a client out.
  if (!held && recycle_of(newcomer.address)) {
    held = shared_.addresses.hold(newcomer.address, at_most, newcomer.now_ns);
  }
  if (!held) return ConnectionRefusal::client_connections;
  hold = std::move(*held);
  return ConnectionRefusal::none;
}

ConnectionRefusal Admission::admit(const Newcomer& newcomer) {
  const uint64_t most = shared_.max_connections.load(std::memory_order_relaxed);
  if (shared_.connections.load(std::memory_order_relaxed) >= most && !recycle_one() && !recycle_elsewhere()) {
    return ConnectionRefusal::max_connections;
  }
  if (is_reserved_file(newcomer.fd) && !recycle_one() && !drop_idle_backend_()) {
    recycle_elsewhere();  // too late for this one: there is no descriptor for both
    return ConnectionRefusal::descriptors;
  }
  shared_.connections.fetch_add(1, std::memory_order_relaxed);
  return ConnectionRefusal::none;
}

void Admission::charge(const IpAddress& address, uint64_t tokens) {
  shared_.addresses.charge(address, shared_.rate(), tokens, loop_.now_ns());
}

void Admission::note_idle(ClientConnection& connection) {
  idle_.add(connection);
  publish_idle();
}

void Admission::note_busy(ClientConnection& connection) {
  idle_.remove(connection);
  publish_idle();
}

bool Admission::recycle_one() {
  ClientConnection* oldest = idle_.oldest();
  if (oldest == nullptr) return false;
  recycle(*oldest);
  return true;
}

// An address that has its share holds much of the list, so a short search finds one of its own.
bool Admission::recycle_of(const IpAddress& address) {
  ClientConnection* oldest = idle_.oldest_that(
      [&](const ClientConnection& connection) { return AddressTable::same(connection.facts().peer.address, address); },
      kIdleLooks);
  if (oldest == nullptr) return false;
  recycle(*oldest);
  return true;
}

// The other worker closes one soon. Until then there is one connection more than allowed.
bool Admission::recycle_elsewhere() {
  for (Admission* other : shared_.workers) {
    if (other == this) continue;
    const uint64_t asked = other->asked_.load(std::memory_order_relaxed);
    if (other->idle_count_.load(std::memory_order_relaxed) <= asked) continue;
    other->asked_.fetch_add(1, std::memory_order_relaxed);
    other->loop_.post([other] {
      other->asked_.fetch_sub(1, std::memory_order_relaxed);
      other->recycle_one();
    });
    return true;
  }
  return false;
}

void Admission::recycle(ClientConnection& connection) {
  stats_.connections_recycled.add();
  connection.recycle();
}

}  // namespace tidegate::l7
