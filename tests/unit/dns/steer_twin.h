// SPDX-License-Identifier: Apache-2.0
// A naive twin of steering: it decides directly from the Model, the live state and the databases, with plain lists and
// linear searches. It shares the draw (Random, DrawKey) with the product, but none of its tables.
#pragma once

#include <string>
#include <vector>

#include "conf/mmdb.h"
#include "conf/model.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "conf/snapshot.h"
#include "dns/steer/alias_book.h"
#include "dns/steer/draw.h"
#include "dns/steer/geo.h"
#include "dns/wire/wire.h"

namespace tidegate::dns::test {

struct TwinAnswer {
  std::vector<std::string> addresses;  // in order
  uint32_t ttl_s = 0;
  bool failed_open = false;
  // Every decision about the client's place on which the answer may depend, as text. Where the text is the same, the
  // candidates of the draw are the same.
  std::string trace;
};

class SteerTwin {
 public:
  SteerTwin(const Snapshot& snapshot, const AliasBook& aliases);
  TwinAnswer ask(uint32_t steer, IpAddress::Family family, const IpAddress& client, uint64_t now_s) const;

 private:
  struct Option {
    uint32_t target;
    uint32_t site = kNone;
    uint64_t weight = 0;  // weight of its class
    bool usable = false, open = false;
    std::string identity;
    uint64_t nth = 0;  // index among its owner's addresses of the family
    std::string address;
    uint32_t steer = kNone;
    const AliasAddresses::Of* alias = nullptr;
  };
  struct Facts {
    uint32_t site = kNone;
    std::optional<Location> location;
    Mmdb::Facts facts;
  };
  struct Call;

  Facts facts_of(const IpAddress& client) const;
  std::vector<Option> options_of(uint32_t steer, IpAddress::Family family) const;
  std::vector<std::vector<Option>> classes_of(uint32_t steer, Call& call, std::string& trace) const;
  std::vector<uint32_t> site_order(const Facts& facts, const std::vector<uint32_t>& sites) const;
  bool survey(uint32_t steer, Call& call, std::string& trace) const;
  bool survey_shed(uint32_t steer, Call& call, std::string& trace) const;
  uint64_t shed_permille(uint32_t site) const;
  uint64_t shed_hash(const Steer& steer, uint32_t site, const Call& call) const;
  bool has_something(const Option& option, Call& call, std::string& trace) const;
  bool take(uint32_t steer, Call& call, uint64_t salt, size_t end) const;
  bool add(const Option& option, Call& call, uint64_t salt, size_t end) const;
  bool draw(std::vector<Option> from, Call& call, uint64_t salt, size_t end) const;
  bool is_allowed(const Option& option, const Call& call) const;
  std::vector<Option> by_network(uint32_t steer, const Call& call) const;

  const Snapshot& snapshot_;
  const Model& model_;
  const AliasBook& aliases_;
  std::vector<std::shared_ptr<const Mmdb>> mmdbs_;
};

}  // namespace tidegate::dns::test
