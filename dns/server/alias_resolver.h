// SPDX-License-Identifier: Apache-2.0
// AliasResolver: looks up the addresses of external names to which steers lead (targets of type alias), by c-ares. It
// looks them up again when their TTL ends. It works on the main thread's loop. Queries never wait for it: they read the
// book's copy in the Tables.
//
// While lookups of a name fail, its last addresses are kept for a day (RFC 8767). If a name does not exist, or has no
// address of a family, it is recorded as having none.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/event_loop.h"
#include "core/ip.h"
#include "core/name_lookup.h"
#include "dns/steer/alias_book.h"

namespace tidegate::dns {

class AliasResolver {
 public:
  // `on_change` is called on the loop's thread when the book has changed: once for several answers that come together.
  AliasResolver(EventLoop& loop, std::function<void()> on_change);
  ~AliasResolver();
  AliasResolver(const AliasResolver&) = delete;
  AliasResolver& operator=(const AliasResolver&) = delete;

  // From now on looks up these names and no others. If `resolvers` is empty, the resolvers of /etc/resolv.conf are
  // asked.
  void follow(const std::vector<std::string>& names, const std::vector<Endpoint>& resolvers);
  const AliasBook& book() const { return book_; }

  struct Counts {
    uint64_t found = 0, empty = 0, failed = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Lookup;  // state of one name and family

  void stop_asking();
  void run_due();
  void start(Lookup& lookup);
  void answered(Lookup& lookup, const NameLookup::Answer& answer);
  void answered_well(Lookup& lookup, const NameLookup::Answer& answer);
  void failed(Lookup& lookup);
  void store(const Lookup& lookup, AliasAddresses::Of&& found);
  void settle();  // arms the timer for the next lookup

  EventLoop& loop_;
  std::function<void()> on_change_;
  std::unique_ptr<NameLookup> resolvers_now_;  // null: nothing is being asked
  std::vector<Endpoint> resolvers_;
  std::map<std::pair<std::string, IpAddress::Family>, std::unique_ptr<Lookup>> lookups_;
  size_t under_way_ = 0;
  AliasBook book_;
  Counts counts_;
  Timer due_, changed_;
};

}  // namespace tidegate::dns
