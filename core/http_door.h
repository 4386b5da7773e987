// SPDX-License-Identifier: Apache-2.0
// HttpDoor: decides which connections one kind of socket (TCP, or unix) admits, and which connection must make room.
//
// At the limit, the connection that is idle longest is closed for the new one. Idle means: between requests, in a
// handshake, before its first complete request head, or refused and lingering. The new connection is refused only if no
// connection is idle. One address has its own limit within the limit of all. The last places of a unix socket are for
// root and the process's own user. TCP leaves the last descriptors to others (core/open_files.h).
//
// Threads: everything runs on the loop's thread.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/address_table.h"
#include "core/idle_list.h"
#include "core/ip.h"
#include "core/metrics.h"

namespace tidegate {

class HttpConnection;

class HttpDoor {
 public:
  enum class Kind : uint8_t { tcp, local };
  enum class Refusal : uint8_t { none, too_many_connections, too_many_from_address, no_descriptors };
  struct Terms {
    size_t connections = 0;
    size_t per_address = 0;     // part of `connections`: limit of one address; TCP only
    size_t for_owner = 0;       // part of `connections`: for root and the process's own user; unix sockets only
    size_t streams = 0;         // how many answers of unknown length may run at once
    std::vector<Cidr> trusted;  // addresses that are not limited
  };
  struct Newcomer {
    int fd = -1;
    std::optional<IpAddress> address;  // of a TCP client
    uint32_t uid = 0;                  // of a unix socket's client
  };
  // The place that a connection occupies while it lives.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept : door_(std::exchange(other.door_, nullptr)), address_(std::move(other.address_)) {}
    Place& operator=(Place&&) = delete;
    ~Place() {
      if (door_ != nullptr) --door_->open_;
    }

   private:
    friend class HttpDoor;
    HttpDoor* door_ = nullptr;
    AddressTable::Hold address_;
  };

  HttpDoor(Kind kind, Terms terms, Counter& recycled);

  // Makes room if needed. If it returns `none`, `place` belongs to the new connection.
  Refusal enter(const Newcomer& newcomer, uint64_t now_ns, Place& place);
  // Closes the connection that is idle longest. Returns false if no connection is idle.
  bool recycle_one();

  // Connections report here whether they are idle or busy.
  void note_idle(HttpConnection& connection);
  void note_busy(HttpConnection& connection);
  bool begin_stream();  // false: the limit of streams is reached
  void end_stream() { --streams_; }

  const Terms& terms() const { return terms_; }
  size_t open() const { return open_; }
  size_t streams() const { return streams_; }

 private:
  bool counts(const Newcomer& newcomer) const;
  bool hold_address(const Newcomer& newcomer, uint64_t now_ns, AddressTable::Hold& hold);
  bool recycle_of(const IpAddress& address);
  void recycle(HttpConnection& connection);

  const Kind kind_;
  const Terms terms_;
  Counter& recycled_;
  std::unique_ptr<AddressTable> addresses_;  // made for the first TCP client; most servers never need it
  IdleList<HttpConnection> idle_;
  size_t open_ = 0;
  size_t streams_ = 0;
};

}  // namespace tidegate
