// SPDX-License-Identifier: Apache-2.0
#include "l4/plan/forwarding.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "l4/eal.h"
#include "l4/explain.h"
#include "l4/punt.h"
#include "tests/unit/l4/edge.h"

namespace tidegate::l4::forwarding_test {

using namespace testing;

const FlowHasher kHasher{kFlowKey};

// The backend picked for TCP flow number `flow`. The clients are 192.0.2.0 and the addresses after it.
BackendId pick(const ForwardingTables& tables, uint32_t flow) {
  const FlowTuple tuple{4,
                        kProtocolTcp,
                        htons(static_cast<uint16_t>(1'024 + flow % 60'000)),
                        htons(80),
                        words_of(IpAddress::v4(htonl(0xc0000200u + flow / 60'000))),
                        words_of(ip("10.0.0.100"))};
  const ServiceEntry* service = tables.find_service(4, tuple.vip, kProtocolTcp, tuple.service_port_be);
  return pick_backend(*service, kHasher, 4, tuple.client, kHasher.tuple(tuple));
}

TEST(LookupTable, AgreesWithANaiveTwin) {
  std::vector<std::pair<LookupKey, uint32_t>> entries;
  for (uint32_t i = 0; i < 3'000; ++i) {
    entries.emplace_back(
        LookupKey::of_service(i % 2 != 0 ? 4 : 6, {mix64(i / 7), i % 5}, kProtocolTcp, static_cast<uint16_t>(i)), i);
  }
  const LookupTable table(entries);
  const auto twin = [&](const LookupKey& key) {
    for (const auto& [known, value] : entries) {
      if (known == key) return value;
    }
    return LookupTable::kAbsent;
  };
  for (uint32_t i = 0; i < 3'000; i += 7) EXPECT_EQ(table.find(entries[i].first), twin(entries[i].first));
  for (uint32_t i = 0; i < 500; ++i) {
    const LookupKey absent = LookupKey::of_address(4, {mix64(i), 9});
    EXPECT_EQ(table.find(absent), twin(absent));
  }
}

TEST(Forwarding, FindsServicesByFamilyProtocolAndPort) {
  Edge edge;
  const auto tables = edge.tables();
  const AddressWords four = words_of(ip("10.0.0.100")), six = words_of(ip("fd00::100"));
  ASSERT_NE(tables->find_service(4, four, kProtocolTcp, htons(80)), nullptr);
  EXPECT_EQ(tables->find_service(4, four, kProtocolTcp, htons(80))->service, 0u);
  EXPECT_EQ(tables->find_service(6, six, kProtocolUdp, htons(53))->service, 1u);
  EXPECT_EQ(tables->find_service(4, four, kProtocolUdp, htons(80)), nullptr);
  EXPECT_EQ(tables->find_service(4, four, kProtocolTcp, htons(81)), nullptr);
  EXPECT_EQ(tables->local_kind(4, four), LocalKind::vip);
  EXPECT_EQ(tables->local_kind(4, words_of(ip("10.0.0.2"))), LocalKind::own);
  EXPECT_EQ(tables->local_kind(4, words_of(ip("10.9.0.100"))), LocalKind::none) << "another site's VIP";
}

// A worker compares two pointers. So with thousands of addresses, a backend that comes and goes costs it nothing.
TEST(Forwarding, SharesAddressesAndNeighboursWithTheTablesOfBeforeWhileTheyStay) {
  Edge edge;
  const auto before = edge.tables();
  edge.say(0, OverrideState::down);
  const auto flapped = edge.tables();
  EXPECT_EQ(flapped->local, before->local);
  EXPECT_EQ(flapped->neighbours, before->neighbours);
  edge.model.vips[0].addresses.push_back(ip("10.0.0.101"));
  const auto grown = edge.tables();
  EXPECT_EQ(grown->neighbours, before->neighbours);
  ASSERT_NE(grown->local, before->local);
  EXPECT_EQ(grown->local->addresses.back().address, ip("10.0.0.101"));
  EXPECT_EQ(grown->local->addresses.back().since, grown->generation);
  EXPECT_LT(grown->local->addresses.front().since, grown->generation);
}

// The number of slots of each backend in the family's table.
std::map<std::string, size_t> shares(Edge& edge, const ForwardingTables& tables, uint8_t family) {
  std::map<std::string, size_t> out;
  for (const ServiceEntry& service : tables.services) {
    if (service.family != family || service.service != 0) continue;
    for (const uint16_t slot : service.table->slots) ++out[edge.name_of(BackendId{slot})];
  }
  return out;
}

TEST(Forwarding, AnswersForAVipThatAnotherForwarderOfTheLinkHoldsOnlyOnceThatOneIsDown) {
  Edge edge;
  Node other = edge.model.nodes[0];
  other.name = "other";
  other.l4.ports[0].addresses = {{ip("10.0.0.3"), 24}, {ip("fd00::3"), 64}};
  edge.model.nodes = {edge.model.nodes[0], other};
  const AddressWords vip = words_of(ip("10.0.0.100"));
  const auto held = edge.tables();
  EXPECT_EQ(held->local_kind(4, vip), LocalKind::vip) << "it is the first of the two";
  edge.live_state.health[plane_key("l4", "l4")] = {false, "link down", 1, false};
  const auto left = edge.tables();
  EXPECT_EQ(left->local_kind(4, vip), LocalKind::standby);
  EXPECT_EQ(left->local_kind(6, words_of(ip("fd00::100"))), LocalKind::standby);
  EXPECT_NE(left->find_service(4, vip, kProtocolTcp, htons(80)), nullptr)
      << "neighbours may not know the other one yet";
  EXPECT_EQ(left->digest, held->digest) << "both forwarders decide alike";
  ASSERT_EQ(left->local->left.size(), 1u) << "the group of the IPv6 address";
  edge.live_state.health.clear();
  const auto back = edge.tables();
  ASSERT_EQ(back->local_kind(4, vip), LocalKind::vip);
  EXPECT_EQ(back->local->addresses.back().since, back->generation) << "it is announced again";
}

TEST(Forwarding, GivesABackendThatIsSilentNoNewFlowsWhileOthersAnswer) {
  Edge edge;
  NeighbourBoard board;
  const auto before = edge.tables();
  const auto silence = [&](size_t index, bool v4, bool silent) {
    board.tell(before->backend(edge.id(index)).neighbour(v4 ? 4 : 6), silent);
  };
  silence(1, true, true);
  auto tables = edge.tables({{}, &board});
  EXPECT_EQ(shares(edge, *tables, 4).count("web2"), 0u);
  EXPECT_EQ(shares(edge, *tables, 6).count("web2"), 1u) << "it answers there";
  EXPECT_FALSE(tables->backend(edge.id(1)).keeps_flows(4));
  EXPECT_TRUE(tables->backend(edge.id(1)).keeps_flows(6));
  silence(0, true, true);
  silence(2, true, true);
  tables = edge.tables({{}, &board});
  EXPECT_EQ(shares(edge, *tables, 4).size(), 3u) << "where nobody answers the fault is ours: all keep their share";
  EXPECT_TRUE(tables->backend(edge.id(1)).keeps_flows(4));
  for (size_t i = 0; i < 3; ++i) silence(i, true, false);
  tables = edge.tables({{}, &board});
  EXPECT_EQ(shares(edge, *tables, 4), shares(edge, *before, 4));
  EXPECT_EQ(board.silent(), 0u);
}

TEST(Forwarding, LeavesAPortThatIsDownOutOfDecisions) {
  Edge edge;
  L4Port second;
  second.device = "eth1";
  second.addresses = {{ip("10.0.1.2"), 24}, {ip("10.0.0.3"), 24}};
  edge.model.nodes[0].l4.ports.push_back(second);
  edge.backend(2).addresses = {ip("10.0.1.13")};
  auto tables = edge.tables();
  EXPECT_EQ(shares(edge, *tables, 4).size(), 3u);
  tables = edge.tables({{false, true}, nullptr});
  EXPECT_EQ(shares(edge, *tables, 4).count("web3"), 0u);
  tables = edge.tables({{true, false}, nullptr});
  EXPECT_EQ(shares(edge, *tables, 4).size(), 3u) << "the second port is on that link too";
  for (const NeighbourTarget& target : tables->neighbours->targets) {
    if (target.address.is_v4()) EXPECT_EQ(target.port, 1) << target.address.to_string();
  }
  tables = edge.tables({{true, true}, nullptr});
  EXPECT_EQ(shares(edge, *tables, 4).size(), 3u) << "with no port at all nothing is better than anything";
}

TEST(Forwarding, ReachesABackendThatIsNotOnTheLinkByTheGateway) {
  Edge edge;
  edge.model.nodes[0].l4.ports[0].gateways = {ip("10.0.0.1")};
  edge.backend(0).addresses = {ip("192.0.2.11"), ip("2001:db8::11")};
  const auto tables = edge.tables();
  const auto address_of_hop = [&](size_t index, uint8_t family) {
    const NeighbourId id = tables->backend(edge.id(index)).neighbour(family);
    for (const NeighbourTarget& target : tables->neighbours->targets) {
      if (target.id == id) return target.address.to_string();
    }
    return std::string("none");
  };
  EXPECT_EQ(address_of_hop(0, 4), "10.0.0.1");
  EXPECT_EQ(address_of_hop(0, 6), "2001:db8::11") << "there is no gateway of that family: it is asked for itself";
  EXPECT_EQ(address_of_hop(1, 4), "10.0.0.12");
}

TEST(PuntDevice, IsNamedAfterThePortAndNeverLikeAnother) {
  EXPECT_EQ(punt_device_name("eth0"), "tg-eth0");
  EXPECT_EQ(punt_device_name("enp0s31f6abc"), "tg-enp0s31f6abc");
  const std::string first = punt_device_name("enp129s0f0np0"), second = punt_device_name("enp129s0f0np1");
  EXPECT_NE(first, second);
  EXPECT_LE(first.size(), 15u);
  EXPECT_EQ(first.substr(0, 10), "tg-enp129s");
}

TEST(Forwarding, SpreadsFlowsAsWeightsSay) {
  Edge edge;
  edge.backend(0).weight = 100;
  edge.backend(1).weight = 50;
  edge.backend(2).weight = 10;
  const auto tables = edge.tables();
  constexpr uint32_t kFlows = 100'000;
  std::map<BackendId, uint32_t> count;
  for (uint32_t flow = 0; flow < kFlows; ++flow) ++count[pick(*tables, flow)];
  for (size_t i = 0; i < 3; ++i) {
    const double expected = kFlows * edge.backend(i).weight / 160.0;
    EXPECT_NEAR(count[edge.id(i)], expected, expected * 0.05) << edge.backend(i).name;
  }
}

TEST(Forwarding, MovesFewFlowsOfOthersWhenABackendLeaves) {
  Edge edge;
  for (int i = 4; i <= 10; ++i) {
    Backend backend = edge.backend(0);
    backend.name = "web" + std::to_string(i);
    edge.model.pools[0].backends.push_back(backend);
  }
  const auto before = edge.tables();
  edge.say(4, OverrideState::drained);
  const auto after = edge.tables();
  const BackendId gone = edge.id(4);
  uint32_t moved = 0, others = 0;
  for (uint32_t flow = 0; flow < 50'000; ++flow) {
    const BackendId was = pick(*before, flow), is = pick(*after, flow);
    ASSERT_NE(is, gone);
    if (was == gone) continue;
    ++others;
    if (was != is) ++moved;
  }
  EXPECT_LT(moved, others / 20);
}

TEST(Forwarding, RebuildsOnlyTheTableThatChanged) {
  Edge edge;
  Pool second = edge.model.pools[0];
  second.name = "other";
  edge.model.pools.push_back(second);
  edge.model.services[1].pool = 1;
  const auto before = edge.tables();
  // If all backends have both families, the families of a pool share one table.
  EXPECT_EQ(edge.builder.maglev_tables_built(), 2u);
  edge.say(0, OverrideState::drained);
  const auto after = edge.tables();
  EXPECT_EQ(edge.builder.maglev_tables_built(), 3u);
  EXPECT_EQ(before->services[2].table, after->services[2].table) << "the other pool's table is shared";
  EXPECT_NE(before->digest, after->digest);
}

TEST(Forwarding, GivesTheSameTablesAfterARestart) {
  Edge one, two;
  two.say(0, OverrideState::drained);  // another history gives other ids
  two.tables();
  two.live_state.overrides.clear();
  std::swap(two.model.pools[0].backends[0], two.model.pools[0].backends[2]);
  const auto first = one.tables(), second = two.tables();
  for (uint32_t flow = 0; flow < 10'000; ++flow) {
    ASSERT_EQ(one.name_of(pick(*first, flow)), two.name_of(pick(*second, flow)));
  }
  EXPECT_EQ(first->digest, second->digest);
}

TEST(Forwarding, KeepsFlowsOfDrainingBackendsAndNotOfThoseDown) {
  Edge edge;
  edge.say(0, OverrideState::drained);
  edge.say(1, OverrideState::down);
  const auto tables = edge.tables();
  EXPECT_TRUE(tables->backend(edge.id(0)).keeps_flows(4));
  EXPECT_FALSE(tables->backend(edge.id(1)).keeps_flows(4));
  EXPECT_TRUE(tables->backend(edge.id(2)).keeps_flows(4));
  EXPECT_FALSE(tables->backend(BackendId{777}).keeps_flows(4));
  for (uint32_t flow = 0; flow < 1'000; ++flow) EXPECT_EQ(pick(*tables, flow), edge.id(2));
}

TEST(Forwarding, TheServersThatANameLedToGetFlowsAndOneThatLeftKeepsItsOwn) {
  Edge edge;
  Pool& pool = edge.model.pools[0];
  pool.probe = kNone;
  pool.backends = {{.name = "app", .host = "app.test", .port = 80}};
  const auto found = [&](uint64_t left_ns) {
    edge.live_state.names["host app.test"] = {
        {{*Endpoint::parse("10.0.0.21:0"), 0, 1, left_ns}, {*Endpoint::parse("10.0.0.22:0"), 0, 1}}, ""};
    return edge.tables();
  };
  const auto none = edge.tables();
  ASSERT_NE(none, nullptr);
  const auto id = [&](const char* server) { return *edge.builder.backend_ids().find({"web", server}); };
  const auto both = found(0);
  const BackendId first = id("app/10.0.0.21:80"), second = id("app/10.0.0.22:80");
  uint32_t of_first = 0;
  for (uint32_t flow = 0; flow < 1'000; ++flow) of_first += pick(*both, flow) == first ? 1 : 0;
  EXPECT_GT(of_first, 300u);
  EXPECT_LT(of_first, 700u);
  const auto one = found(77);
  for (uint32_t flow = 0; flow < 1'000; ++flow) EXPECT_EQ(pick(*one, flow), second);
  EXPECT_TRUE(one->backend(first).keeps_flows(4));
}

TEST(Forwarding, LeavesBackendsWithoutAnAddressOfTheFamilyOut) {
  Edge edge;
  edge.backend(0).addresses = {ip("fd00::11")};
  const auto tables = edge.tables();
  for (uint32_t flow = 0; flow < 1'000; ++flow) EXPECT_NE(pick(*tables, flow), edge.id(0));
}

TEST(Forwarding, RefusesMoreBackendsThanIds) {
  Edge edge;
  Backend backend = edge.backend(0);
  for (size_t i = 0; i < kMaxBackends; ++i) {
    backend.name = "b" + std::to_string(i);
    edge.model.pools[0].backends.push_back(backend);
  }
  EXPECT_EQ(edge.tables(), nullptr);
}

TEST(Forwarding, TakesBackTheIdsOfARefusedBuild) {
  Edge edge;
  const auto before = edge.tables();
  const Pool sound = edge.model.pools[0];
  Backend backend = edge.backend(0);
  for (size_t i = 0; i < kMaxBackends; ++i) {
    backend.name = "b" + std::to_string(i);
    edge.model.pools[0].backends.push_back(backend);
  }
  ASSERT_EQ(edge.tables(), nullptr);
  edge.model.pools[0] = sound;
  backend.name = "late";
  edge.model.pools[0].backends.push_back(backend);
  const auto after = edge.tables();
  ASSERT_NE(after, nullptr) << "no id is left";
  EXPECT_EQ(edge.builder.backend_ids().find({"web", "b0"}), std::nullopt);
}

TEST(Forwarding, HasNoEffectUntilItIsAdopted) {
  Edge edge;
  const auto before = edge.tables();
  const Pool sound = edge.model.pools[0];
  const BackendId first = edge.id(0);
  Edge unharmed;
  ASSERT_NE(unharmed.tables(), nullptr);

  Backend more = edge.backend(0);
  more.name = "more";
  more.addresses = {ip("10.0.0.99")};
  edge.model.pools[0].backends = {more};
  edge.model.vips[0].addresses.push_back(ip("10.0.0.101"));
  ASSERT_NE(edge.candidate(), nullptr);
  edge.builder.abandon();
  EXPECT_EQ(edge.builder.backend_ids().find({"web", "more"}), std::nullopt);

  edge.model.pools[0] = sound;
  edge.model.vips[0].addresses.pop_back();
  const auto again = edge.tables();
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(edge.id(0), first);
  EXPECT_EQ(again->neighbours, before->neighbours);
  EXPECT_EQ(again->local, before->local) << "the addresses would be announced once more";
  EXPECT_EQ(again->digest, unharmed.tables()->digest);
}

TEST(StableIds, KeepAnIdFromOthersUntilItsFlowsAreGone) {
  StableIds<BackendId, std::string> ids(2);
  ids.begin_round(0, 1'000);
  const BackendId a = *ids.intern("a"), b = *ids.intern("b");
  EXPECT_NE(a, b);
  ids.adopt_round(0);
  ids.begin_round(100, 1'000);
  EXPECT_EQ(ids.intern("b"), b);
  EXPECT_EQ(ids.intern("c"), std::nullopt) << "a was in use until just now";
  ids.adopt_round(100);
  ids.begin_round(200, 1'000);
  EXPECT_EQ(ids.intern("b"), b);
  ids.adopt_round(200);
  ids.begin_round(2'000, 1'000);
  EXPECT_EQ(ids.intern("b"), b);
  EXPECT_EQ(ids.intern("c"), a);
}

TEST(StableIds, GiveWhatAnAbandonedRoundTookToTheNext) {
  StableIds<BackendId, std::string> ids(2);
  ids.begin_round(0, 1'000);
  const BackendId a = *ids.intern("a");
  ids.adopt_round(0);
  ids.begin_round(1, 1'000);
  const BackendId b = *ids.intern("b");
  EXPECT_EQ(ids.intern("c"), std::nullopt);
  ids.begin_round(2, 1'000);
  EXPECT_EQ(ids.find("b"), std::nullopt);
  EXPECT_EQ(ids.intern("a"), a) << "what the round before dropped was dropped without effect";
  EXPECT_EQ(ids.intern("c"), b);
}

TEST(Explain, SaysWhatThePacketPathWouldDo) {
  Edge edge;
  edge.say(1, OverrideState::drained);
  const auto tables = edge.tables();
  const auto no_flow = [](uint64_t) { return std::optional<FlowEntry>(); };
  ExplainQuestion question;
  question.client = ip("192.0.2.0");
  question.client_port = 1'024 + 5;
  question.vip = "vip";
  question.port = 80;
  const auto ask = [&](const FindFlow& find_flow) {
    return explain(*tables, kHasher, edge.builder.backend_ids(), find_flow, question);
  };
  nlohmann::json said = ask(no_flow);
  EXPECT_EQ(said["decision"], "maglev");
  EXPECT_EQ(said["service"], "http");
  EXPECT_EQ(said["pool"], "web");
  EXPECT_EQ(said["backend"], edge.name_of(pick(*tables, 5)));
  EXPECT_EQ(said["eligible"].size(), 3u);
  EXPECT_EQ(said["eligible"][1]["state"], "draining");

  said = ask([&](uint64_t) { return FlowEntry{1, 0, edge.id(1), FlowState::established, 0}; });
  EXPECT_EQ(said["decision"], "flow");
  EXPECT_EQ(said["backend"], "web2") << "a draining backend keeps its flow";

  question.client_port.reset();
  EXPECT_EQ(ask(no_flow)["decision"], "none");
  EXPECT_TRUE(ask(no_flow)["backend"].is_null());
  question.port = 81;
  EXPECT_TRUE(ask(no_flow)["service"].is_null());
  question.client = ip("fd00::7");
  question.vip = "10.0.0.100";
  EXPECT_EQ(ask(no_flow)["decision"], "none");
}

TEST(EalArguments, FitTheHost) {
  Edge edge;
  L4Node node = edge.model.nodes[0].l4;
  node.workers = 2;
  const auto joined = [&](const HostResources& host) {
    std::string out;
    for (const std::string& argument : eal_arguments(node, host)) out += argument + " ";
    return out;
  };
  EXPECT_NE(joined({{0, 1, 2, 3}, 1 << 30}).find("--lcores 0@(0,1,2,3),1@3,2@2 --in-memory -m 128"), std::string::npos);
  EXPECT_NE(joined({{0, 1}, 0}).find("--lcores 0@(0,1),1@(0,1),2@(0,1) --no-huge --no-shconf"), std::string::npos);
  EXPECT_NE(joined({{0}, 0}).find("--no-pci"), std::string::npos);
  node.ports[0].device = "0000:3b:00.1";
  EXPECT_EQ(joined({{0}, 0}).find("--no-pci"), std::string::npos);
  EXPECT_NE(joined({{0}, 0}).find("-a 0000:3b:00.1"), std::string::npos);
  node.ports[0].device = "bond0";
  node.ports[0].members = {"0000:3b:00.0", "0000:3c:00.0"};
  EXPECT_NE(joined({{0}, 0}).find("-a 0000:3b:00.0 -a 0000:3c:00.0"), std::string::npos) << "each member";
  node.ports[0].members = {"eth0", "eth1"};
  EXPECT_NE(joined({{0}, 0}).find("--no-pci"), std::string::npos);
}

TEST(EalDrivers, OfHardwareAreToldFromThoseOfInterfacesAndCaptureFiles) {
  const std::string directory = "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/";
  for (const char* library : {"librte_net_mlx5.so.23.0", "librte_bus_pci.so", "librte_net_af_xdp_of_another.so"})
    EXPECT_TRUE(is_driver_of_hardware(directory + library)) << library;
  for (const char* library : {"librte_net_af_xdp.so.23.0", "librte_net_af_packet.so.23", "librte_net_pcap.so",
                              "librte_bus_vdev.so.23.0", "librte_mempool_ring.so.23.0"})
    EXPECT_FALSE(is_driver_of_hardware(directory + library)) << library;
  for (const char* other : {"librte_eal.so.23.0", "/usr/lib/librte_net_mlx5.so", "/opt/dpdk/pmds-23.0/mine.so", ""})
    EXPECT_FALSE(is_driver_of_hardware(other)) << other;
}

}  // namespace tidegate::l4::forwarding_test
