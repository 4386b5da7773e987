// SPDX-License-Identifier: Apache-2.0
// Probes via the VIP: the order to a forwarder, the meaning of its answer, and what follows if no forwarder can send
// it.
#include <deque>

#include "conf/model/probe.h"
#include "conf/model/site.h"
#include "control/health/prober.h"
#include "control/limits.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::probe_vip_test {

using nlohmann::json;
using ::testing::HasSubstr;

json ended(const std::string& end, const std::string& reply = "") {
  return {{"end", end}, {"why", "because of " + end}, {"reply", reply}};
}

class VipProbe : public ::testing::Test {
 protected:
  VipProbe() {
    target.type = ProbeType::tcp;
    target.via_vip = true;
    target.pool = "web";
    target.backend = "web1";
    target.vips = {*Endpoint::parse("192.0.2.1:443"), *Endpoint::parse("[2001:db8::1]:443")};
    target.forwarders = {"f1", "f2"};
    target.timeout_ms = 250;
    target.door = std::make_shared<ForwarderDoor>(ForwarderDoor{
        [this](const std::string& node, const std::string& order, uint64_t, const ForwarderDoor::Answer& answer) {
          asked.push_back(node);
          ordered = json::parse(order);
          answer(answers.contains(node) ? Result<HttpResponse>(answers.at(node)) : fail("connect: refused"));
        }});
  }
  void answer(const std::string& node, const json& first, const json& second) {
    answers.insert_or_assign(node, HttpResponse::json(200, json{{"results", {first, second}}}.dump()));
  }
  ProbeResult probe() {
    asked.clear();
    std::optional<ProbeResult> result;
    const auto attempt = start_probe(loop, target, [&](ProbeResult given) { result = std::move(given); });
    EXPECT_FALSE(result) << "never inside the call";
    EXPECT_TRUE(pump(loop, [&] { return result.has_value(); }));
    return result.value_or(ProbeResult{});
  }
  EventLoop loop;
  ProbeTarget target;
  std::vector<std::string> asked;
  json ordered;
  std::map<std::string, HttpResponse> answers;
};

TEST_F(VipProbe, ItIsUpIfItAnswersForEveryAddressOfItsVips) {
  answer("f1", ended("answered"), ended("answered"));
  EXPECT_TRUE(probe().success);
  EXPECT_EQ(asked, std::vector<std::string>{"f1"}) << "one forwarder is enough";
  EXPECT_EQ(ordered["backend"], "web1");
  EXPECT_EQ(ordered["targets"][1], json({{"vip", "2001:db8::1"}, {"port", 443}}));
  answer("f1", ended("answered"), ended("timeout"));
  const ProbeResult silent = probe();
  EXPECT_FALSE(silent.success);
  EXPECT_EQ(silent.reason, "[2001:db8::1]:443: nothing for 250 ms");
  EXPECT_EQ(silent.cause, ProbeCause::timeout);
  answer("f1", ended("refused"), ended("answered"));
  EXPECT_EQ(probe().reason, "192.0.2.1:443: connect refused");
  answer("f1", ended("no_neighbour"), ended("answered"));
  EXPECT_TRUE(probe().looked) << "a backend without an answer to ARP is down";
}

TEST_F(VipProbe, AForwarderThatCannotAskTakesNoBackendDown) {
  answer("f2", ended("answered"), ended("answered"));
  EXPECT_TRUE(probe().success) << "the second one asks";
  EXPECT_EQ(asked.size(), 2U);
  for (const HttpResponse& bad :
       {HttpResponse::problem(404, "Not Found", "of an earlier release"), HttpResponse::json(200, "{"),
        HttpResponse::json(200, R"({"results":[]})"), HttpResponse::json(200, R"([1])"),
        HttpResponse::json(200, R"({"results":[1,2]})"), HttpResponse::problem(503, "Service Unavailable", "many"),
        HttpResponse::json(200, json{{"results", {ended("no_source"), ended("answered")}}}.dump())}) {
    answers.insert_or_assign("f1", bad);
    answers.insert_or_assign("f2", bad);
    const ProbeResult result = probe();
    EXPECT_FALSE(result.looked) << bad.body;
    EXPECT_THAT(result.reason, HasSubstr("no forwarder of the site can ask: f2: "));
  }
  target.door = nullptr;
  EXPECT_FALSE(probe().looked);
}

TEST_F(VipProbe, ADatagramsReplyIsJudgedAsThatOfOtherProbes) {
  target.type = ProbeType::udp;
  target.send = "who\n";
  target.expect = "web1";
  target.vips.pop_back();
  answers.insert_or_assign("f1", HttpResponse::json(200, json{{"results", {ended("answered", "77656231")}}}.dump()));
  EXPECT_TRUE(probe().success);
  EXPECT_EQ(ordered["payload"], "77686f0a");
  answers.insert_or_assign("f1", HttpResponse::json(200, json{{"results", {ended("answered", "77zz")}}}.dump()));
  EXPECT_EQ(probe().reason, "192.0.2.1:443: the answer lacks 'web1'");
  target.type = ProbeType::dns;
  target.dns_name = ".";
  target.dns_type = "SOA";
  target.dns_rcode = "NOERROR";
  EXPECT_EQ(probe().reason, "192.0.2.1:443: answers what is no answer to the query");
}

TEST_F(VipProbe, ManySilentBackendsTakeTheirTurnsAndNoneIsForgotten) {
  std::deque<ForwarderDoor::Answer> under_way;
  target.door = std::make_shared<ForwarderDoor>(
      ForwarderDoor{[&](const std::string&, const std::string&, uint64_t, const ForwarderDoor::Answer& answer) {
        under_way.push_back(answer);
      }});
  size_t told = 0;
  std::vector<std::unique_ptr<ProbeAttempt>> attempts;
  for (size_t i = 0; i < 3 * kMaxVipProbes; ++i) {
    attempts.push_back(start_probe(loop, target, [&](const ProbeResult&) { ++told; }));
  }
  EXPECT_EQ(under_way.size(), kMaxVipProbes);
  attempts.erase(attempts.end() - 2, attempts.end());  // two that still wait
  attempts.erase(attempts.begin());                    // one that is in progress: the next one takes its turn
  EXPECT_EQ(under_way.size(), kMaxVipProbes + 1);
  while (!under_way.empty()) {
    const ForwarderDoor::Answer answer = under_way.front();
    under_way.pop_front();
    answer(HttpResponse::json(200, json{{"results", {ended("timeout"), ended("timeout")}}}.dump()));
    EXPECT_LE(under_way.size(), kMaxVipProbes);
  }
  EXPECT_TRUE(pump(loop, [&] { return told == attempts.size(); }));
}

TEST_F(VipProbe, AnAttemptThatIsDroppedSaysNothingMore) {
  ForwarderDoor::Answer late;
  target.door = std::make_shared<ForwarderDoor>(ForwarderDoor{
      [&](const std::string&, const std::string&, uint64_t, const ForwarderDoor::Answer& answer) { late = answer; }});
  bool told = false;
  start_probe(loop, target, [&](const ProbeResult&) { told = true; }).reset();
  late(HttpResponse::json(200, json{{"results", {ended("answered"), ended("answered")}}}.dump()));
  loop.run_once(0);
  EXPECT_FALSE(told);
}

const char* const kEdge = R"(sites: [{name: eu, location: {latitude: 50.11, longitude: 8.68}}]
nodes:
  - {name: box, site: eu, l4: {ports: [{device: eth0, addresses: [192.0.2.2/24]}]}}
vips: [{name: v, site: eu, addresses: [192.0.2.1, "2001:db8::1"]}]
services:
  - {name: https, vip: v, port: 443, pool: web}
  - {name: voice, vip: v, port: 5060, protocol: udp, pool: web}
probes: [{name: p, type: tcp, via: vip, interval: 20ms, rise: 1, fall: 1}]
pools: [{name: web, probe: p, backends: [{name: web1, addresses: [192.0.2.11]}]}]
)";

TEST(VipProbeControl, TheForwardersWordIsTheVerdictOfEveryPlane) {
  EventLoop loop;
  Host host{loop};
  host.start();
  FakePlane l4(loop, host.options.run_dir, "l4");
  l4.explained = {{"results", {ended("answered")}}};
  const HttpResponse put = host.put_config(kEdge);
  ASSERT_EQ(put.status, 200) << put.body;
  const auto becomes = [&](bool up) {
    return pump(loop, [&] {
      const auto live = host.control->host_state().live_state();
      const auto found = live->health.find("backend/web/web1");
      return found != live->health.end() && found->second.up == up;
    });
  };
  EXPECT_TRUE(becomes(true)) << "asked for the one family that it has, by the service of its protocol";
  EXPECT_EQ(l4.asked, "/probe");
  l4.explained = {{"results", {ended("timeout")}}};
  EXPECT_TRUE(becomes(false));
  const json order{{"pool", "web"}};
  EXPECT_EQ(host.call_json("POST", "/v1/node/probe", order).status, 200) << "for the controls of other hosts";
  EXPECT_EQ(host.call_as(kOperatorToken, "POST", "/v1/node/probe", "{}", {{"Content-Type", "application/json"}}).status,
            403);
}

}  // namespace tidegate::testing::probe_vip_test
