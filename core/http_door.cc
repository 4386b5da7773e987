// SPDX-License-Identifier: Apache-2.0
#include "core/http_door.h"

#include <unistd.h>

#include <algorithm>

#include "core/crypto.h"
#include "core/http_connection.h"
#include "core/open_files.h"

namespace tidegate {

HttpDoor::HttpDoor(Kind kind, Terms terms, Counter& recycled)
    : kind_(kind), terms_(std::move(terms)), recycled_(recycled) {}

HttpDoor::Refusal HttpDoor::enter(const Newcomer& newcomer, uint64_t now_ns, Place& place) {
  AddressTable::Hold hold;
  if (counts(newcomer) && !hold_address(newcomer, now_ns, hold)) return Refusal::too_many_from_address;
  size_t places = terms_.connections;
  if (kind_ == Kind::local && newcomer.uid != 0 && newcomer.uid != ::geteuid()) {
    places -= std::min(places, terms_.for_owner);
  }
  if (open_ >= places && !recycle_one()) return Refusal::too_many_connections;
  if (kind_ == Kind::tcp && is_reserved_file(newcomer.fd) && !recycle_one()) return Refusal::no_descriptors;
  ++open_;
  place.door_ = this;
  place.address_ = std::move(hold);
  return Refusal::none;
}

bool HttpDoor::counts(const Newcomer& newcomer) const {
  if (!newcomer.address || terms_.per_address == 0) return false;
  return std::none_of(terms_.trusted.begin(), terms_.trusted.end(),
                      [&](const Cidr& network) { return network.contains(*newcomer.address); });
}

bool HttpDoor::hold_address(const Newcomer& newcomer, uint64_t now_ns, AddressTable::Hold& hold) {
  if (!addresses_) addresses_ = std::make_unique<AddressTable>(terms_.connections, random_hash_key());
  const auto at_most = static_cast<uint32_t>(terms_.per_address);
  std::optional<AddressTable::Hold> held = addresses_->hold(*newcomer.address, at_most, now_ns);
  // Idle connections of the same address make room first. So a client is not locked out by finished connections of
  // others behind its address.
  if (!held && recycle_of(*newcomer.address)) held = addresses_->hold(*newcomer.address, at_most, now_ns);
  if (!held) return false;
  hold = std::move(*held);
  return true;
}

bool HttpDoor::recycle_one() {
  HttpConnection* oldest = idle_.oldest();
  if (oldest == nullptr) return false;
  recycle(*oldest);
  return true;
}

bool HttpDoor::recycle_of(const IpAddress& address) {
  HttpConnection* oldest = idle_.oldest_that(
      [&](const HttpConnection& connection) {
        return connection.peer() && AddressTable::same(connection.peer()->address, address);
      },
      terms_.connections);
  if (oldest == nullptr) return false;
  recycle(*oldest);
  return true;
}

void HttpDoor::recycle(HttpConnection& connection) {
  recycled_.add();
  connection.recycle();
}

void HttpDoor::note_idle(HttpConnection& connection) { idle_.add(connection); }

void HttpDoor::note_busy(HttpConnection& connection) { idle_.remove(connection); }

bool HttpDoor::begin_stream() {
  if (streams_ >= terms_.streams) return false;
  ++streams_;
  return true;
}

}  // namespace tidegate
