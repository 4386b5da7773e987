// SPDX-License-Identifier: Apache-2.0
// Shared by the tests of dns/: zones and edges from text, queries in wire form, and answers read by ldns, which shares
// no code with our writer.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "conf/snapshot.h"
#include "dns/query/query.h"
#include "dns/query/tables.h"

#include <ldns/ldns.h>  // last, because it defines macros for bool and false

namespace tidegate::dns::test {

struct PacketDeleter {
  void operator()(ldns_pkt* packet) const { ldns_pkt_free(packet); }
};
using PacketPtr = std::unique_ptr<ldns_pkt, PacketDeleter>;

// An answer as an independent reader understands it.
struct Answer {
  PacketPtr packet;
  std::vector<uint8_t> wire;

  explicit operator bool() const { return packet != nullptr; }
  int rcode() const;
  bool aa() const { return ldns_pkt_aa(packet.get()); }
  bool tc() const { return ldns_pkt_tc(packet.get()); }
  // Each record in presentation form, with single spaces between its fields: "www.example.test. 300 IN A 192.0.2.1".
  std::vector<std::string> answers() const { return texts(ldns_pkt_answer(packet.get())); }
  std::vector<std::string> authorities() const { return texts(ldns_pkt_authority(packet.get())); }
  std::vector<std::string> additionals() const { return texts(ldns_pkt_additional(packet.get())); }  // without OPT
  // For an answer that holds only addresses (and aliases): the addresses, sorted.
  std::vector<std::string> addresses() const;

  static std::vector<std::string> texts(const ldns_rr_list* list);
};

// The packet is null if ldns cannot read it.
Answer read_answer(std::vector<uint8_t> wire);

// An EDNS option of a query.
struct Option {
  uint16_t code = 0;
  std::string data;
};
struct Edns {
  uint16_t payload = 1232;
  uint8_t version = 0;
  bool dnssec_ok = false;
  std::vector<Option> options;
};

std::vector<uint8_t> make_query(std::string_view name, uint16_t type, const std::optional<Edns>& edns = std::nullopt,
                                uint16_t id = 0x1234);
// The client subnet option for a prefix such as "10.1.2.0/24".
Option subnet_option(std::string_view cidr, uint8_t scope = 0);

// The RDATA of the answer's OPT record, option by option. nullopt if it has none.
std::optional<std::vector<Option>> options_of(const Answer& answer);

// Targets of each type.
SteerTarget to_vip(uint32_t vip, uint32_t weight = 100);
SteerTarget to_pool(uint32_t pool, uint32_t weight = 100);
SteerTarget to_steer(uint32_t steer, uint32_t weight = 100);
SteerTarget to_alias(const std::string& name, uint32_t weight = 100);

// An edge under construction. answer() builds the Tables on first use, and again after changed().
class Edge {
 public:
  Edge();

  Model& model() { return model_; }
  LiveState& live_state() { return live_state_; }
  Node& node() { return node_; }
  uint32_t add_site(const std::string& name, double latitude, double longitude);
  uint32_t add_vip(const std::string& name, uint32_t site, std::vector<std::string> addresses);
  // With a probe: a backend counts as up once its health record says so.
  uint32_t add_pool(const std::string& name, std::vector<std::pair<std::string, std::string>> backends, bool probed);
  void add_service(uint32_t vip, uint32_t pool);
  void add_zone(const std::string& name, const std::string& text);
  Steer& add_steer(const std::string& name, SteerPolicy policy, std::vector<SteerTarget> targets);
  void add_network(const std::string& cidr, uint32_t site);
  void add_network(const std::string& cidr, Location location);
  void say_health(const std::string& pool, const std::string& backend, bool up);
  void drain_site(const std::string& site);
  // `key` is that of an override (conf/live_state.h).
  void drain(const std::string& key);
  // The addresses of the aliases that the resolver knows, used from the next build on.
  AliasBook& aliases() { return aliases_; }

  // Builds again. Shares unchanged parts with the earlier Tables, like the daemon.
  Result<std::shared_ptr<const Tables>> build();
  const Tables& tables();
  void changed(bool model_too = true);

  Answer ask(std::string_view name, uint16_t type, const std::string& client = "198.51.100.1",
             const std::optional<Edns>& edns = std::nullopt);
  // Returns an empty vector if there is no answer.
  std::vector<uint8_t> ask_wire(const std::vector<uint8_t>& query, const std::string& client = "198.51.100.1",
                                QueryTransport transport = QueryTransport::udp);
  Worker& worker() { return worker_; }
  uint64_t count(QueryOutcome outcome) const;

 private:
  Model model_;
  LiveState live_state_;
  AliasBook aliases_;
  Node node_;
  std::shared_ptr<const Model> shared_model_;
  std::shared_ptr<const Tables> tables_;
  Worker worker_{HashKey{1, 2}};
  uint64_t version_ = 0;
};

inline constexpr char kZone[] = R"($ORIGIN example.test.
$TTL 300
@          IN SOA   ns1 hostmaster 2026010101 3600 600 604800 60
           IN NS    ns1
           IN NS    ns2.elsewhere.test.
           IN MX    10 mail
           IN TXT   "a zone" "in two strings"
ns1        IN A     192.0.2.53
           IN AAAA  2001:db8::53
mail       IN A     192.0.2.25
www    60  IN A     192.0.2.80
       60  IN A     192.0.2.81
       60  IN AAAA  2001:db8::80
alias      IN CNAME www
alias2     IN CNAME alias
apexalias  IN CNAME @
outside    IN CNAME www.elsewhere.test.
dangling   IN CNAME nowhere
loop1      IN CNAME loop2
loop2      IN CNAME loop1
a.b.c      IN TXT   "below two empty non-terminals"
*.wild     IN TXT   "from the wildcard"
*.wild     IN A     192.0.2.99
real.wild  IN A     192.0.2.98
sub.ent.wild IN A   192.0.2.97
*.cnamed   IN CNAME www
child      IN NS    ns.child
child      IN NS    ns1
child      IN DS    12345 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
ns.child   IN A     192.0.2.77
ns.child   IN AAAA  2001:db8::77
hidden.child IN A   192.0.2.78
old        IN DNAME new.example.test.
gone       IN DNAME elsewhere.test.
host.new   IN A     192.0.2.44
srv        IN SRV   0 0 443 www
)";

}  // namespace tidegate::dns::test
