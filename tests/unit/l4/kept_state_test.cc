// SPDX-License-Identifier: Apache-2.0
// The state that a forwarder leaves to its successor: the file, the flow tables, the ids and the neighbours.
#include "l4/kept_state.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>

#include "core/clock.h"
#include "l4/conn_table.h"
#include "tests/unit/l4/decider_fixture.h"

namespace tidegate::l4::kept_state_test {

using namespace testing;

constexpr uint64_t kKeptFlows = 1'000;

// A directory on a tmpfs, like /run.
class KeptStateTest : public ::testing::Test {
 protected:
  KeptStateTest() {
    char name[] = "/dev/shm/tidegate-kept-XXXXXX";
    directory_ = ::mkdtemp(name);
    shape_.workers = 2;
    shape_.flows = kKeptFlows;
    shape_.secret_check = 77;
    shape_.devices = {"eth0"};
  }
  ~KeptStateTest() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<KeptState> open() {
    Result<std::unique_ptr<KeptState>> kept = KeptState::open(directory_, shape_, now_ns_);
    EXPECT_TRUE(kept) << (kept ? "" : kept.error().message);
    return kept ? std::move(*kept) : nullptr;
  }
  static KeptIds two_backends() {
    KeptIds ids;
    ids.backends = {{{"web", "a"}, BackendId{3}}, {{"web", "b"}, BackendId{1}}};
    ids.pools["web"] = {Forwarding::gue, 5, 6'080};
    ids.longest_timeout_ms = 900'000;
    return ids;
  }
  // A process with one flow in each worker's table. It ends without notice.
  void leave() {
    std::filesystem::remove(directory_ + "/l4.flows");
    const auto kept = open();
    ASSERT_NE(kept, nullptr);
    EXPECT_FALSE(kept->inherited());
    ASSERT_TRUE(kept->write_ids(two_backends()));
    for (uint32_t worker = 0; worker < shape_.workers; ++worker) {
      const KeptMemory memory = kept->memory_of(worker, now_ns_);
      EXPECT_FALSE(memory.inherited);
      ConnTable(kKeptFlows, memory.flows).insert(42 + worker, BackendId{3}, 60'000, memory.now_ms);
    }
  }
  std::string why_new() {
    const auto kept = open();
    return kept ? kept->why_new() : "nothing is kept";
  }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(directory_ + "/" + name, std::ios::trunc) << text;
  }
  std::string read_ids() {
    std::ifstream in(directory_ + "/l4.flows.ids");
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::string directory_;
  KeptShape shape_;
  uint64_t now_ns_ = 5'000 * kNsPerS;
};

TEST_F(KeptStateTest, ASuccessorFindsTheFlowsOfEachWorkerAndWhatTheirIdsMean) {
  leave();
  now_ns_ += 2 * kNsPerS;
  const auto kept = open();
  ASSERT_NE(kept, nullptr);
  EXPECT_EQ(kept->why_new(), "");
  EXPECT_EQ(kept->ids().backends, two_backends().backends);
  EXPECT_EQ(kept->ids().pools, two_backends().pools);
  EXPECT_EQ(kept->ids().longest_timeout_ms, 900'000u);
  for (uint32_t worker = 0; worker < shape_.workers; ++worker) {
    const KeptMemory memory = kept->memory_of(worker, now_ns_);
    ASSERT_TRUE(memory.inherited && memory.neighbours_inherited);
    ConnTable table(kKeptFlows, memory.flows);
    EXPECT_EQ(table.take_over(*memory.known_ids, memory.now_ms).flows, 1u);
    const FlowEntry* flow = table.find(42 + worker, memory.now_ms);
    ASSERT_NE(flow, nullptr);
    EXPECT_EQ(flow->backend, BackendId{3});
  }
  struct stat status {};
  ASSERT_EQ(::stat(kept->path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u) << "for nobody else";
}

TEST_F(KeptStateTest, OtherDevicesCostTheNeighboursOnly) {
  leave();
  shape_.devices = {"eth1"};
  const auto kept = open();
  ASSERT_NE(kept, nullptr);
  EXPECT_TRUE(kept->memory_of(0, now_ns_).inherited);
  EXPECT_FALSE(kept->memory_of(0, now_ns_).neighbours_inherited);
}

TEST_F(KeptStateTest, WhatDoesNotFitIsNamedAndTheTablesBeginEmpty) {
  const auto poke = [this](uint64_t at, uint8_t byte) {
    const UniqueFd file(::open((directory_ + "/l4.flows").c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_EQ(::pwrite(file.get(), &byte, 1, static_cast<off_t>(at)), 1);
  };
  const KeptShape shape = shape_;
  const uint64_t now_ns = now_ns_;
  const std::vector<std::pair<std::string, std::function<void()>>> cases = {
      {"workers was 2, and is 3", [&] { shape_.workers = 3; }},
      {"flows was 1000, and is 5000", [&] { shape_.flows = 5'000; }},
      {"the site's secret is another one", [&] { shape_.secret_check = 78; }},
      {"they are older than any flow", [&] { now_ns_ += 13ull * 86'400 * kNsPerS; }},
      {"they are older than any flow", [&] { now_ns_ -= kNsPerS; }},
      {"the file is not one of flows", [&] { poke(0, 0); }},
      {"their layout is 9, and this release has 1", [&] { poke(8, 9); }},
      {"the process before had not written which backends they name", [&] { poke(12, 0); }},
      {"the host was started anew", [&] { poke(60, 'x'); }},
      {"the host was started anew", [&] { poke(99, 'x'); }},
      {"the file is too short", [&] { std::filesystem::resize_file(directory_ + "/l4.flows", 20); }},
      {"the file has 4096 bytes, and should have",
       [&] { std::filesystem::resize_file(directory_ + "/l4.flows", 4'096); }},
      {"l4.flows.ids: No such file", [&] { std::filesystem::remove(directory_ + "/l4.flows.ids"); }},
      {"l4.flows.ids cannot be read", [&] { write("l4.flows.ids", "{"); }},
      {"l4.flows.ids cannot be read", [&] { write("l4.flows.ids", "[]"); }},
      {"belongs to other tables", [&] { write("l4.flows.ids", R"({"layout":1,"table":1})"); }},
      {"names an id or a backend wrongly",
       [&] {
         std::string ids = read_ids();
         ids.replace(ids.find("\"b\",1"), 5, "\"b\",3");
         write("l4.flows.ids", ids);
       }},
      {"names an id or a backend wrongly",
       [&] {
         std::string ids = read_ids();
         ids.replace(ids.find("\"b\",1"), 5, "\"a\",1");
         write("l4.flows.ids", ids);
       }},
      {"names an id or a backend wrongly",
       [&] {
         std::string ids = read_ids();
         ids.replace(ids.find("\"b\",1"), 5, "\"b\",16384");
         write("l4.flows.ids", ids);
       }},
  };
  for (const auto& [why, spoil] : cases) {
    shape_ = shape;
    now_ns_ = now_ns;
    leave();
    EXPECT_EQ(why_new(), "") << "before: " << why;
    spoil();
    const auto kept = open();
    ASSERT_NE(kept, nullptr);
    EXPECT_NE(kept->why_new().find(why), std::string::npos) << why << ": " << kept->why_new();
    const KeptMemory memory = kept->memory_of(0, now_ns_);
    EXPECT_FALSE(memory.inherited || memory.neighbours_inherited);
    EXPECT_TRUE(kept->ids().backends.empty());
    ConnTable table(shape_.flows, memory.flows);
    EXPECT_EQ(table.find(42, memory.now_ms), nullptr) << why;
  }
}

TEST_F(KeptStateTest, TablesWithoutNamesAreNotTakenOver) {
  leave();
  {
    const auto kept = open();
    ASSERT_NE(kept, nullptr);
    std::filesystem::create_directory(directory_ + "/l4.flows.ids.new");  // so that it cannot be written
    EXPECT_FALSE(kept->write_ids(two_backends()));
  }
  EXPECT_EQ(why_new(), "the process before had not written which backends they name");
}

TEST_F(KeptStateTest, WaitsUntilAKilledProcessHasLetGo) {
  leave();
  int said[2];
  ASSERT_EQ(::pipe2(said, O_CLOEXEC), 0);
  const pid_t process = ::fork();
  ASSERT_GE(process, 0);
  if (process == 0) {
    const auto held = open();
    const char byte = held && held->inherited() ? 'y' : 'n';
    if (::write(said[1], &byte, 1) == 1) ::pause();
    ::_exit(1);
  }
  char byte = 0;
  ASSERT_EQ(::read(said[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  ASSERT_EQ(::kill(process, SIGKILL), 0);  // it releases the file when it has ended, a moment later
  EXPECT_EQ(why_new(), "");
  ASSERT_EQ(::waitpid(process, nullptr, 0), process);
  ::close(said[0]);
  ::close(said[1]);
}

TEST_F(KeptStateTest, NeedsATmpfsAndAFileOfItsOwn) {
  const Result<std::unique_ptr<KeptState>> elsewhere = KeptState::open("/proc", shape_, now_ns_);
  ASSERT_FALSE(elsewhere);
  EXPECT_EQ(elsewhere.error().message, "the run directory /proc is not on a tmpfs");
  write("elsewhere", "precious");
  std::filesystem::create_symlink(directory_ + "/elsewhere", directory_ + "/l4.flows");
  EXPECT_FALSE(KeptState::open(directory_, shape_, now_ns_));
  EXPECT_EQ(std::filesystem::file_size(directory_ + "/elsewhere"), 8u);
  std::filesystem::remove(directory_ + "/l4.flows");
  shape_.flows = uint64_t{1} << 45;
  const Result<std::unique_ptr<KeptState>> too_large = KeptState::open(directory_, shape_, now_ns_);
  ASSERT_FALSE(too_large);
  EXPECT_EQ(std::filesystem::file_size(directory_ + "/l4.flows"), 0u) << "and nothing is left of it";
}

// --- the flow table

struct alignas(64) Line {
  uint8_t bytes[64];
};
std::vector<Line> memory_for_flows() { return std::vector<Line>(ConnTable::bytes_for(kKeptFlows) / sizeof(Line)); }

TEST(KeptFlows, AreTheSameInTheTableThatTakesThemOver) {
  const std::vector<bool> known(100, true);
  const FlowTimeouts timeouts = {3'000, 3'000, 1'000};
  std::vector<Line> memory = memory_for_flows();
  auto table = std::make_unique<ConnTable>(kKeptFlows, memory.data());
  std::map<uint64_t, FlowEntry> twin;
  std::mt19937_64 random(3);
  uint32_t now_ms = UINT32_MAX - 2'000;  // the clock wraps on the way
  for (int step = 0; step < 20'000; ++step) {
    now_ms += static_cast<uint32_t>(random() % 2);
    if (step % 1'000 == 999) {  // killed: another process sees the same bytes
      std::vector<Line> bytes = memory;
      table = std::make_unique<ConnTable>(kKeptFlows, bytes.data());
      std::erase_if(twin, [&](const auto& each) { return each.second.expired(now_ms); });
      const ConnTable::Inherited inherited = table->take_over(known, now_ms);
      ASSERT_EQ(inherited.flows, twin.size());
      ASSERT_EQ(inherited.refused, 0u);
      ASSERT_EQ(table->live(), twin.size());
      memory = std::move(bytes);
    }
    const uint64_t hash = mix64(random() % 900 + 1);
    FlowEntry* flow = table->find(hash, now_ms);
    const auto known_flow = twin.find(hash);
    const bool lives = known_flow != twin.end() && !known_flow->second.expired(now_ms);
    ASSERT_EQ(flow != nullptr, lives);
    if (flow == nullptr) {
      flow = table->insert(hash, BackendId(static_cast<uint16_t>(random() % 100)), timeouts.embryonic_ms, now_ms);
    } else {
      ASSERT_EQ(flow->backend, known_flow->second.backend);
      ASSERT_EQ(flow->state, known_flow->second.state);
      flow->advance(static_cast<FlowEvent>(random() % 4), timeouts, now_ms);
    }
    twin[hash] = *flow;
  }
  EXPECT_EQ(table->evicted(), 0u);
}

TEST(KeptFlows, DamagedEntriesAreRefusedAndTheOthersStay) {
  std::vector<bool> known(10, true);
  known[7] = false;
  const std::vector<std::function<void(FlowEntry&)>> damages = {
      [](FlowEntry& flow) { flow.backend = BackendId{7}; },
      [](FlowEntry& flow) { flow.backend = BackendId{10}; },
      [](FlowEntry& flow) { flow.backend = kNoBackend; },
      [](FlowEntry& flow) { flow.state = FlowState::empty; },
      [](FlowEntry& flow) { flow.state = static_cast<FlowState>(5); },
      [](FlowEntry& flow) { flow.hash = mix64(flow.hash); },
      [](FlowEntry& flow) { flow.expires_ms = 1'000 + kMaxFlowTimeoutMs + 1; },
  };
  std::vector<Line> memory = memory_for_flows();
  {
    ConnTable table(kKeptFlows, memory.data());
    for (uint64_t i = 1; i <= 500; ++i) {
      FlowEntry* flow = table.insert(mix64(i), BackendId{1}, 60'000, 1'000);
      if (i <= damages.size()) damages[i - 1](*flow);
    }
  }
  ConnTable table(kKeptFlows, memory.data());
  const ConnTable::Inherited inherited = table.take_over(known, 1'000);
  EXPECT_EQ(inherited.refused, damages.size());
  EXPECT_EQ(inherited.flows, 500 - damages.size());
  for (uint64_t i = 1; i <= 500; ++i) EXPECT_EQ(table.find(mix64(i), 1'000) != nullptr, i > damages.size()) << i;
}

TEST(KeptFlows, AnyBytesAtAllLeaveAWorkingTable) {
  const std::vector<bool> known(16'384, true);
  std::vector<Line> memory = memory_for_flows();
  std::mt19937_64 random(9);
  for (Line& line : memory) {
    for (uint8_t& byte : line.bytes) byte = static_cast<uint8_t>(random() % 8 == 0 ? random() % 6 : random());
  }
  ConnTable table(kKeptFlows, memory.data());
  const ConnTable::Inherited inherited = table.take_over(known, 1'000);
  EXPECT_GT(inherited.refused, table.capacity() / 4);
  EXPECT_LT(inherited.flows, table.capacity() / 8);
  for (uint64_t i = 1; i <= 500; ++i) ASSERT_NE(table.insert(mix64(i), BackendId{1}, 60'000, 1'000), nullptr);
  table.sweep(table.bucket_count(), 1'000 + kMaxFlowTimeoutMs);
  EXPECT_EQ(table.live(), 0u);
}

// --- ids

TEST(KeptIdsTest, BackendsKeepTheirIdsWhateverTheOrderOfTheNextProcess) {
  Edge edge;
  ASSERT_NE(edge.candidate(), nullptr);
  EXPECT_TRUE(edge.builder.ids_changed());
  ASSERT_NE(edge.tables(), nullptr);
  const KeptIds kept = edge.builder.kept_ids();
  EXPECT_EQ(kept.backends.size(), 3u);

  Edge next;
  std::swap(next.model.pools[0].backends[0], next.model.pools[0].backends[2]);
  Backend fourth = next.backend(0);
  fourth.name = "web0";
  next.model.pools[0].backends.insert(next.model.pools[0].backends.begin(), fourth);
  next.model.pools[0].backends.pop_back();  // web1 is gone, and flows may still hold its id
  next.builder.restore(kept, next.now_ns);
  ASSERT_NE(next.tables(), nullptr);
  EXPECT_EQ(*next.builder.backend_ids().find({"web", "web2"}), edge.id(1));
  EXPECT_EQ(*next.builder.backend_ids().find({"web", "web3"}), edge.id(2));
  EXPECT_EQ(*next.builder.backend_ids().find({"web", "web1"}), edge.id(0));
  EXPECT_GT(index_of(*next.builder.backend_ids().find({"web", "web0"})), 2u) << "no id that a flow may hold";
  ASSERT_NE(next.tables(), nullptr);
  EXPECT_FALSE(next.builder.ids_changed()) << "nothing has to be written again";
}

TEST(KeptIdsTest, AnIdThatNobodyHadIsGivenOutAgain) {
  KeptIds kept;
  kept.backends = {{{"web", "web1"}, BackendId{2}}};
  Edge edge;
  edge.builder.restore(kept, edge.now_ns);
  ASSERT_NE(edge.tables(), nullptr);
  EXPECT_EQ(edge.id(0), BackendId{2});
  EXPECT_LT(index_of(edge.id(1)), 2u);
  EXPECT_LT(index_of(edge.id(2)), 2u);
}

TEST(KeptIdsTest, FlowsOfAPoolThatNoServiceUsesAnyMoreStayAlsoInTheNextProcess) {
  Edge edge;
  ASSERT_NE(edge.tables(), nullptr);
  const KeptIds kept = edge.builder.kept_ids();
  const BackendId former = edge.id(0);
  Edge next;
  Pool other = next.model.pools[0];
  other.name = "other";
  next.model.pools.push_back(other);
  for (Service& service : next.model.services) service.pool = 1;
  next.builder.restore(kept, next.now_ns);
  const auto tables = next.tables();
  ASSERT_NE(tables, nullptr);
  EXPECT_TRUE(tables->backend(former).keeps_flows(4));
  EXPECT_TRUE(tables->backend(former).keeps_flows(6));
}

// --- neighbours

class NoFrames final : public FrameSink {
 public:
  void send(uint16_t, const uint8_t* frame, size_t bytes) override { frames.emplace_back(frame, frame + bytes); }
  std::vector<Bytes> frames;
};

TEST(KeptNeighbours, AreUsedAtOnceAndAskedAgain) {
  const std::vector<PortIdentity> ports = {PortIdentity{kOurMac, {{ip("10.0.0.2"), 24}}},
                                           PortIdentity{kOurMac, {{ip("10.1.0.2"), 24}}}};
  const auto set_of = [](const std::vector<NeighbourTarget>& targets) {
    return std::make_shared<const NeighbourSet>(targets);
  };
  std::vector<KeptNeighbour> records(kMaxNeighbours);
  Neighbours before(ports);
  before.keep(records.data());
  std::vector<NeighbourTarget> targets;
  for (uint16_t i = 0; i < 4; ++i) targets.push_back({NeighbourId{i}, ip("10.0.0.1" + std::to_string(i)), 0});
  before.set_targets(set_of(targets), 0);
  before.learn(targets[0].address, mac_of_backend(0), 100);  // too long ago
  for (uint16_t i = 1; i < 4; ++i) before.learn(targets[i].address, mac_of_backend(i), 50'000);
  ++records[3].mac[5];  // killed while it wrote

  Neighbours after(ports);
  after.recall(records.data(), 61'000);
  // In another order, and one of them on another port.
  std::swap(targets[0].address, targets[1].address);
  targets[2].port = 1;
  after.set_targets(set_of(targets), 61'000);
  EXPECT_TRUE(after.next_hop(NeighbourId{0}).usable);
  EXPECT_EQ(Mac::from(after.next_hop(NeighbourId{0}).ethernet_addresses), mac_of_backend(1));
  for (uint16_t i = 1; i < 4; ++i) EXPECT_FALSE(after.next_hop(NeighbourId{i}).usable) << i;
  NoFrames sent;
  after.tick(61'000, 64, sent);
  ASSERT_EQ(sent.frames.size(), 4u);
  EXPECT_EQ(sent.frames[0], arp(1, kOurMac, "10.0.0.2", Mac{}, "10.0.0.11", mac_of_backend(1))) << "it alone";
}

// --- all of it in a Decider

class KeptDeciderTest : public DeciderTest {};

TEST_F(KeptDeciderTest, EstablishedFlowsKeepTheirBackendsInTheNextProcess) {
  std::vector<Line> memory(ConnTable::bytes_for(4'096) / sizeof(Line));
  std::vector<KeptNeighbour> records(kMaxNeighbours);
  const std::vector<bool> known(3, true);
  DeciderConfig config;
  config.kept.flows = memory.data();
  config.kept.neighbours = records.data();
  restart(config);
  std::map<uint16_t, int> backends;
  for (uint16_t port = 1'000; port < 1'200; ++port) backends[port] = tcp_backend(port, kTcpSyn);

  // The next process has other weights, so the hash table alone would choose other backends.
  edge_.backend(0).weight = 1'000;
  config.kept.known_ids = &known;
  config.kept.inherited = config.kept.neighbours_inherited = true;
  config.kept.now_ms = now_ms_;
  config.hasher = FlowHasher(kFlowKey);
  config.ports = {PortIdentity{kOurMac, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}}};
  config.flows = 4'096;
  counters_ = std::make_unique<WorkerCounters>();
  decider_ = std::make_unique<Decider>(config, *counters_);
  publish();
  EXPECT_EQ(counters_->flows_inherited.value(), backends.size());
  size_t moved = 0;
  for (const auto& [port, backend] : backends) moved += size_t{tcp_backend(port, kTcpAck) != backend};
  EXPECT_EQ(moved, 0u) << "without waiting for a neighbour's answer either";
  EXPECT_EQ(counters_->flows_created.value(), 0u);
}

}  // namespace tidegate::l4::kept_state_test
