// SPDX-License-Identifier: Apache-2.0
// The views of packets for an operator: capture files, captures, top talkers, events of new flows, dry runs.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/service.h"
#include "l4/capture.h"
#include "l4/dry_run.h"
#include "l4/pcap_file.h"
#include "l4/top_sources.h"
#include "tests/unit/l4/harness.h"

namespace tidegate::l4::observe_test {

using namespace testing;

constexpr const char* kVip4 = "10.0.0.100";
constexpr const char* kVip6 = "fd00::100";

template <class T>
void put(std::string& out, T value, bool swapped = false) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  if (swapped) std::reverse(bytes, bytes + sizeof value);
  out.append(bytes, sizeof value);
}

std::string pcap_of(const std::vector<Bytes>& frames, bool swapped = false, uint32_t magic = 0xa1b2c3d4,
                    uint32_t link = 1) {
  std::string out;
  put(out, magic, swapped);
  put(out, uint16_t{2}, swapped);
  put(out, uint16_t{4}, swapped);
  for (const uint32_t each : {0u, 0u, 65'535u, link}) put(out, each, swapped);
  for (size_t i = 0; i < frames.size(); ++i) {
    const auto bytes = static_cast<uint32_t>(frames[i].size());
    for (const uint32_t each : {7u, static_cast<uint32_t>(i) * 1'000, bytes, bytes}) put(out, each, swapped);
    out.append(reinterpret_cast<const char*>(frames[i].data()), frames[i].size());
  }
  return out;
}

std::vector<Bytes> frames_of(const std::vector<CaptureRecord>& records) {
  std::vector<Bytes> frames;
  for (const CaptureRecord& each : records) frames.emplace_back(each.bytes.begin(), each.bytes.end());
  return frames;
}

const std::vector<Bytes> kSome = {Bytes(60, 1), Bytes(61, 2), Bytes(14, 3), Bytes(1'514, 4)};

TEST(PcapFile, IsReadInBothOrdersAndResolutions) {
  for (const bool swapped : {false, true}) {
    for (const uint32_t magic : {0xa1b2c3d4u, 0xa1b23c4du}) {
      const std::string file = pcap_of(kSome, swapped, magic);
      const auto read = read_capture(file, 100);
      ASSERT_TRUE(read) << read.error().message;
      EXPECT_EQ(frames_of(*read), kSome);
      const uint64_t unit_ns = magic == 0xa1b2c3d4u ? 1'000 : 1;
      EXPECT_EQ((*read)[2].time_ns, 7'000'000'000u + 2'000 * unit_ns);
    }
  }
  const std::string file = pcap_of(kSome);
  EXPECT_EQ(read_capture(file, 2)->size(), 2u);
}

TEST(PcapFile, ComesBackFromWhatItWrites) {
  PcapngWriter writer({"eth0", "eth1"});
  for (size_t i = 0; i < kSome.size(); ++i) {
    writer.append({i * 1'000'000'001, kSome[i], 2'000}, static_cast<uint32_t>(i % 2), i == 1 ? "" : "drop: a reason");
  }
  const auto read = read_capture(writer.bytes(), 100);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(frames_of(*read), kSome);
  EXPECT_EQ((*read)[3].time_ns, 3'000'000'003u);
  EXPECT_EQ((*read)[3].whole_bytes, 2'000u);
}

TEST(PcapFile, NamesWhatIsWrongAndNeverReadsPastTheEnd) {
  const std::string file = pcap_of(kSome);
  PcapngWriter writer({"eth0"});
  for (const Bytes& each : kSome) writer.append({1, each, 60}, 0, "comment");
  for (const std::string& whole : {file, writer.bytes()}) {
    for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
      const std::unique_ptr<char[]> exact(new char[bytes + 1]);  // so that a byte beyond it is noticed
      std::memcpy(exact.get(), whole.data(), bytes);
      const auto read = read_capture({exact.get(), bytes}, 100);
      if (read) EXPECT_LT(read->size(), kSome.size()) << "cut between two records";
    }
  }
  EXPECT_EQ(read_capture("", 1).error().message, "the file is too short for a capture");
  EXPECT_EQ(read_capture("no capture", 1).error().message, "the file is neither pcap nor pcapng");
  EXPECT_EQ(read_capture(pcap_of(kSome, false, 0xa1b2c3d4, 113), 1).error().message,
            "the capture holds no Ethernet frames");
}

TEST(PcapFile, SurvivesRandomDamage) {
  std::mt19937 random(1);
  PcapngWriter writer({"eth0"});
  for (const Bytes& each : kSome) writer.append({1, each, 60}, 0, "comment");
  for (int round = 0; round < 5'000; ++round) {
    std::string file = round % 2 == 0 ? writer.bytes() : pcap_of(kSome);
    for (uint32_t i = 0; i <= random() % 4; ++i) file[random() % file.size()] = static_cast<char>(random());
    const auto read = read_capture(file, 100);
    if (!read) continue;
    for (const CaptureRecord& each : *read) ASSERT_LE(each.bytes.size(), file.size());
  }
}

class CaptureTest : public ::testing::Test {
 protected:
  // The records of a capture with the filter, made while `traffic` passes.
  std::vector<Capture::Record> captured(const CaptureFilter& filter, const std::vector<Bytes>& traffic,
                                        CaptureBounds bounds = {}) {
    capture_ = std::make_unique<Capture>(filter, bounds);
    worker_.decider->observe(capture_.get());
    for (const Bytes& each : traffic) worker_.decide(each);
    worker_.decider->observe(nullptr);
    return capture_->records();
  }
  Bytes bytes_of(const Capture::Record& record) const {
    const auto bytes = capture_->bytes_of(record);
    return {bytes.begin(), bytes.end()};
  }

  const Bytes http_ = tcp_frame("192.0.2.7", 4'000, kVip4, 80, kTcpSyn);
  const Bytes http6_ = tcp_frame("2001:db8::7", 4'001, kVip6, 80, kTcpSyn);
  const Bytes dns_ = udp_frame("192.0.2.8", 4'002, kVip4, 53);
  const Bytes nobody_ = tcp_frame("192.0.2.7", 4'003, kVip4, 81, kTcpSyn);
  const Bytes truncated_ = Bytes(10);
  const std::vector<Bytes> all_ = {http_, http6_, dns_, nobody_, truncated_};
  Harness worker_;
  std::unique_ptr<Capture> capture_;
};

TEST_F(CaptureTest, KeepsFramesAsTheyCameWithWhatBecameOfThem) {
  const auto records = captured({}, all_);
  ASSERT_EQ(records.size(), 5u);
  for (size_t i = 0; i < all_.size(); ++i) EXPECT_EQ(bytes_of(records[i]), all_[i]) << i;
  EXPECT_EQ(records[0].outcome.verdict, FrameVerdict::forward);
  EXPECT_EQ(worker_.edge.name_of(records[0].backend).substr(0, 3), "web");
  EXPECT_EQ(records[3].outcome.reason, DropReason::no_service);
  EXPECT_EQ(records[4].outcome.reason, DropReason::frame_truncated);
}

TEST_F(CaptureTest, TakesWhatTheFilterSays) {
  const auto count = [&](auto&& set) {
    CaptureFilter filter;
    set(filter);
    return captured(filter, all_).size();
  };
  EXPECT_EQ(count([](CaptureFilter& f) { f.client = Cidr::parse("192.0.2.7/32"); }), 2u);
  EXPECT_EQ(count([](CaptureFilter& f) { f.client = Cidr::parse("2001:db8::/32"); }), 1u);
  EXPECT_EQ(count([](CaptureFilter& f) { f.vip = Cidr::parse("10.0.0.100/32"); }), 3u);
  EXPECT_EQ(count([](CaptureFilter& f) { f.port = 53; }), 1u);
  EXPECT_EQ(count([](CaptureFilter& f) { f.protocol = kProtocolTcp; }), 3u);
  EXPECT_EQ(count([](CaptureFilter& f) { f.dropped = true; }), 2u);
  EXPECT_EQ(count([](CaptureFilter& f) { f.reason = DropReason::no_service; }), 1u);
  EXPECT_EQ(count([](CaptureFilter& f) {
              f.client = Cidr::parse("192.0.2.7/32");
              f.dropped = true;
            }),
            1u);
}

TEST_F(CaptureTest, EndsAtItsBounds) {
  EXPECT_EQ(captured({}, all_, {3, 1 << 20, 256}).size(), 3u);
  EXPECT_TRUE(capture_->is_full());
  const auto records = captured({}, all_, {100, 60, 20});
  EXPECT_EQ(records.size(), 3u) << "three times twenty bytes";
  EXPECT_TRUE(capture_->is_full());
  EXPECT_EQ(records[0].kept_bytes, 20u);
  EXPECT_EQ(records[0].whole_bytes, http_.size());
  EXPECT_EQ(captured({}, all_).size(), 5u);
  EXPECT_FALSE(capture_->is_full());
}

TEST_F(CaptureTest, ReadsBehindTheTagsOfAPort) {
  Harness tagged({}, 1'500, PortTags{100, 7});
  CaptureFilter filter;
  filter.client = Cidr::parse("192.0.2.7/32");
  Capture capture(filter, {});
  tagged.decider->observe(&capture);
  tagged.decide(tagged.with_tags(http_));
  tagged.decide(tagged.with_tags(dns_));
  ASSERT_EQ(capture.records().size(), 1u);
  EXPECT_EQ(capture.records()[0].whole_bytes, http_.size() + 8);
}

TEST_F(CaptureTest, ChangesNoDecision) {
  Harness plain;
  for (int i = 0; i < 200; ++i) {
    const Bytes frame =
        tcp_frame("192.0.2.7", static_cast<uint16_t>(1'000 + i % 50), kVip4, 80, i < 50 ? kTcpSyn : kTcpAck);
    captured({}, {frame});
    EXPECT_EQ(plain.decide(frame).outcome.verdict, FrameVerdict::forward);
  }
  EXPECT_EQ(worker_.counters->flows_created.value(), plain.counters->flows_created.value());
}

TEST(TopSources, FindTheNetworksThatSendMost) {
  TopSources top({1, 2}, prefix_mask(4, 24), prefix_mask(6, 64));
  std::mt19937 random(4);
  std::map<std::string, uint64_t> twin;
  const auto send = [&](const std::string& client, int packets) {
    const Bytes bytes = udp_frame(client, 4'000, client.find(':') == std::string::npos ? kVip4 : kVip6, 53);
    Bytes copy = bytes;
    Frame frame;
    frame.data = copy.data();
    frame.bytes = static_cast<uint32_t>(copy.size());
    for (int i = 0; i < packets; ++i) top.before(&frame, 1, 0);
  };
  send("192.0.2.1", 3'000);
  send("192.0.2.200", 2'000);
  send("2001:db8::1", 4'000);
  for (int i = 0; i < 8'000; ++i) {
    send("198." + std::to_string(random() % 64) + "." + std::to_string(random() % 256) + ".1", 1);
  }
  send("192.0.2.1", 1'000);
  std::vector<std::unique_ptr<TopSources>> workers;
  workers.push_back(std::make_unique<TopSources>(std::move(top)));
  const std::vector<TopSource> merged = merge(workers);
  ASSERT_GE(merged.size(), 2u);
  EXPECT_EQ(address_of(merged[0].network, merged[0].family).to_string(), "192.0.2.0");
  EXPECT_EQ(merged[0].packets - merged[0].error, 6'000u);
  EXPECT_EQ(address_of(merged[1].network, merged[1].family).to_string(), "2001:db8::");
  EXPECT_EQ(merged[1].packets, 4'000u);
  EXPECT_LE(merged.size(), kTopSources);
  EXPECT_LT(merged[2].packets, 1'000u) << "thousands of networks share the other places";
}

class FlowEventsTest : public ::testing::Test {
 protected:
  Harness worker_;
};

TEST_F(FlowEventsTest, TellOneOfSoManyNewFlowsByItsHash) {
  worker_.edge.model.nodes[0].l4.flow_events = 10;
  worker_.publish();
  size_t expected = 0;
  for (uint16_t port = 1'000; port < 3'000; ++port) {
    const Bytes syn = tcp_frame("192.0.2.7", port, kVip4, 80, kTcpSyn);
    for (int packet = 0; packet < 3; ++packet) worker_.decide(syn);
    const FlowTuple tuple{4, kProtocolTcp, htons(port), htons(80), words_of(ip("192.0.2.7")), words_of(ip(kVip4))};
    expected += FlowEvents::tells(FlowHasher(kFlowKey).tuple(tuple), 10) ? 1 : 0;
  }
  std::vector<NewFlow> told;
  uint64_t lost = 0;
  EXPECT_EQ(worker_.decider->flow_events().read(0, told, lost), expected);
  EXPECT_EQ(told.size(), expected);
  EXPECT_NEAR(static_cast<double>(expected), 200, 60);
  EXPECT_EQ(lost, 0u);
  EXPECT_EQ(address_of(told[0].tuple.client, 4), ip("192.0.2.7"));
  EXPECT_TRUE(told[0].begun_here);
  EXPECT_EQ(worker_.edge.name_of(told[0].backend).substr(0, 3), "web");
}

TEST_F(FlowEventsTest, CountWhatNobodyReadInTime) {
  worker_.edge.model.nodes[0].l4.flow_events = 1;
  worker_.publish();
  for (uint32_t i = 0; i < kMaxFlowEvents + 100; ++i) {
    worker_.decide(udp_frame("192.0.2.7", static_cast<uint16_t>(1'000 + i), kVip4, 53));
  }
  std::vector<NewFlow> told;
  uint64_t lost = 0;
  const uint64_t next = worker_.decider->flow_events().read(0, told, lost);
  EXPECT_EQ(told.size(), kMaxFlowEvents);
  EXPECT_EQ(lost, 100u);
  told.clear();
  EXPECT_EQ(worker_.decider->flow_events().read(next, told, lost), next);
  EXPECT_TRUE(told.empty());
}

TEST_F(FlowEventsTest, AreNoneWithoutTheKey) {
  worker_.decide(tcp_frame("192.0.2.7", 1, kVip4, 80, kTcpSyn));
  std::vector<NewFlow> told;
  uint64_t lost = 0;
  EXPECT_EQ(worker_.decider->flow_events().read(0, told, lost), 0u);
}

class DryRunTest : public ::testing::Test {
 protected:
  nlohmann::json explain(const std::vector<Bytes>& frames, DryQuestion question = {}) {
    const std::string file = pcap_of(frames);
    const auto records = read_capture(file, 1'000);
    DryWorld world;
    world.tables = worker_.tables;
    world.config.hasher = FlowHasher(kFlowKey);
    world.config.ports = {PortIdentity{kOurMac, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}, {}, 1'500}};
    world.config.flows = 4'096;
    world.config.announces = false;
    std::optional<size_t> next = 0;
    while (next) next = worker_.decider->neighbours().list(*next, 100, world.neighbours);
    world.find_flows = [&](const std::vector<uint64_t>& hashes) {
      std::vector<FlowEntry> flows;
      for (const uint64_t hash : hashes) {
        if (const auto flow = worker_.decider->flow(hash, worker_.now_ms)) flows.push_back(*flow);
      }
      return flows;
    };
    world.now_ms = worker_.now_ms;
    return explain_frames(world, worker_.edge.builder.backend_ids(), *records, question);
  }
  Harness worker_;
};

TEST_F(DryRunTest, TellsWhatTheWorkerWouldDo) {
  const std::vector<Bytes> frames = {
      tcp_frame("192.0.2.7", 4'000, kVip4, 80, kTcpSyn), tcp_frame("192.0.2.7", 4'000, kVip4, 80, kTcpAck),
      udp_frame("2001:db8::7", 4'001, kVip6, 53), tcp_frame("192.0.2.7", 4'002, kVip4, 81, kTcpSyn),
      arp(1, kRouterMac, "10.0.0.1", Mac{}, kVip4, kBroadcastMac)};
  const nlohmann::json said = explain(frames);
  ASSERT_EQ(said.size(), frames.size());
  EXPECT_EQ(said[0]["verdict"], "forward");
  EXPECT_EQ(said[0]["flow"], "new");
  EXPECT_EQ(said[0]["service"], "http");
  EXPECT_EQ(said[0]["client"], "192.0.2.7:4000");
  EXPECT_EQ(said[1]["flow"], "known") << "the frame before began it";
  EXPECT_EQ(said[1]["backend"], said[0]["backend"]);
  EXPECT_EQ(said[2]["service"], "dns");
  EXPECT_EQ(said[3]["reason"], "no_service");
  EXPECT_EQ(said[4]["verdict"], "answer");
  EXPECT_EQ(worker_.counters->flows_created.value(), 0u) << "the worker notices nothing";
  // The worker decides the same.
  for (size_t i = 0; i < 3; ++i) {
    const int backend = Harness::backend_of(worker_.decide(frames[i]));
    EXPECT_EQ(said[i]["backend"], "web/web" + std::to_string(backend + 1)) << i;
  }
}

TEST_F(DryRunTest, HasTheFlowsThatTheWorkerHolds) {
  uint16_t port = 1'000;
  while (Harness::backend_of(worker_.decide(tcp_frame("192.0.2.7", port, kVip4, 80, kTcpSyn))) != 0) ++port;
  worker_.edge.say(0, OverrideState::drained);
  worker_.publish();
  const nlohmann::json said = explain({tcp_frame("192.0.2.7", port, kVip4, 80, kTcpAck)});
  EXPECT_EQ(said[0]["flow"], "known");
  EXPECT_EQ(said[0]["backend"], "web/web1") << "a draining backend keeps its flow";
}

TEST_F(DryRunTest, TellsOfListsBoundsAndFramesForOthers) {
  Acl list;
  list.name = "bad";
  list.networks = {*Cidr::parse("192.0.2.0/24")};
  worker_.edge.model.acls = {list};
  worker_.edge.model.services[0].deny = {0};
  worker_.edge.model.services[1].limits.packets = 2;
  worker_.publish();
  Bytes elsewhere = tcp_frame("198.51.100.1", 1, kVip4, 80, kTcpSyn);
  elsewhere[5] = 0x77;
  const Bytes query = udp_frame("192.0.2.7", 4'001, kVip4, 53);
  const std::vector<Bytes> frames = {tcp_frame("192.0.2.7", 4'000, kVip4, 80, kTcpSyn), elsewhere, query, query, query};
  const nlohmann::json said = explain(frames);
  EXPECT_EQ(said[0]["reason"], "acl_denied");
  EXPECT_EQ(said[1]["reason"], "other_station");
  EXPECT_EQ(said[3]["verdict"], "forward");
  EXPECT_EQ(said[4]["reason"], "service_packets");
  DryQuestion to_us;
  to_us.to_us = true;
  EXPECT_EQ(explain(frames, to_us)[1]["verdict"], "forward");
}

TEST_F(DryRunTest, SaysSoIfAFrameIsCutOff) {
  Bytes frame = tcp_frame("192.0.2.7", 4'000, kVip4, 80, kTcpSyn);
  std::string file = pcap_of({frame});
  file[24 + 12] = 100;  // the frame was longer on the wire
  const auto records = read_capture(file, 10);
  DryWorld world;
  world.tables = worker_.tables;
  world.config.ports = {PortIdentity{kOurMac, {}, {}, 1'500}};
  world.config.flows = 1'024;
  world.find_flows = [](const std::vector<uint64_t>&) { return std::vector<FlowEntry>(); };
  EXPECT_EQ(explain_frames(world, worker_.edge.builder.backend_ids(), *records, {})[0]["verdict"], "unknown");
}

}  // namespace tidegate::l4::observe_test
