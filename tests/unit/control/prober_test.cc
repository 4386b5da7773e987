// SPDX-License-Identifier: Apache-2.0
// Probes against real sockets: one answers, one refuses, one answers wrongly, one stays silent.

#include "control/health/prober.h"
#include "conf/model/probe.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include <csignal>

#include "control/apply.h"
#include "control/health/probe.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::prober_test {

using ::testing::HasSubstr;

// Listens and answers every request with `status`.
class Origin {
 public:
  explicit Origin(EventLoop& loop)
      : server_(std::make_unique<HttpServer>(loop, [this](const HttpExchangePtr& exchange) {
          ++asked;
          exchange->respond(HttpResponse::text(flaps && asked % 2 == 0 ? 500 : status, "x"));
        })) {
    EXPECT_TRUE(server_->listen_tcp(*Endpoint::parse("127.0.0.1:0")));
    endpoint = server_->tcp_endpoint();
  }
  int status = 200;
  bool flaps = false;  // every second answer is 500
  int asked = 0;
  Endpoint endpoint;

 private:
  std::unique_ptr<HttpServer> server_;
};

// A TCP socket whose kernel accepts connections and which never answers. If it is closed, connections are refused.
class MuteSocket {
 public:
  MuteSocket() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(fd_.get(), 16), 0);
    length = sizeof address;
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    endpoint = Endpoint::from(address);
  }
  void close() { fd_.reset(); }
  UniqueFd accept() const { return UniqueFd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }
  Endpoint endpoint;

 private:
  UniqueFd fd_;
};

ProbeResult probe_once(EventLoop& loop, ProbeType type, const Endpoint& endpoint, uint64_t timeout_ms = kPatienceMs) {
  ProbeTarget target;
  target.type = type;
  target.endpoint = endpoint;
  target.path = "/healthz";
  target.timeout_ms = timeout_ms;
  std::optional<ProbeResult> result;
  const auto attempt = start_probe(loop, target, [&](ProbeResult given) { result = std::move(given); });
  EXPECT_TRUE(pump(loop, [&] { return result.has_value(); }));
  return result.value_or(ProbeResult{});
}

TEST(Probe, TellsUpFromEveryKindOfDown) {
  EventLoop loop;
  Origin origin(loop);
  MuteSocket mute, closed;
  closed.close();
  EXPECT_TRUE(probe_once(loop, ProbeType::http, origin.endpoint).success);
  EXPECT_TRUE(probe_once(loop, ProbeType::tcp, origin.endpoint).success);
  EXPECT_TRUE(probe_once(loop, ProbeType::tcp, mute.endpoint).success);
  EXPECT_EQ(probe_once(loop, ProbeType::http, mute.endpoint, 100).reason, "nothing for 100 ms");
  EXPECT_EQ(probe_once(loop, ProbeType::tcp, closed.endpoint).reason, "connect refused");
  EXPECT_THAT(probe_once(loop, ProbeType::http, closed.endpoint).reason, HasSubstr("refused"));
  EXPECT_FALSE(probe_once(loop, ProbeType::https, origin.endpoint).success) << "no TLS there";
  origin.status = 503;
  EXPECT_EQ(probe_once(loop, ProbeType::http, origin.endpoint).reason, "status 503, expected 200");
}

// Lowers the limit of open files to the number of files that are open.
class NoFiles {
 public:
  NoFiles() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const UniqueFd next(::dup(2));
    rlimit lowered = before_;
    lowered.rlim_cur = static_cast<rlim_t>(next.get());
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &lowered), 0);
  }
  ~NoFiles() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST(Probe, WithoutADescriptorItDidNotLook) {
  EventLoop loop;
  Origin origin(loop);
  const NoFiles none;
  for (const ProbeType type : {ProbeType::tcp, ProbeType::http}) {
    const ProbeResult result = probe_once(loop, type, origin.endpoint);
    EXPECT_FALSE(result.looked) << result.reason;
    EXPECT_FALSE(result.success);
    EXPECT_THAT(result.reason, HasSubstr("Too many open files"));
  }
}

// Stops this thread for a while, as between SIGSTOP and SIGCONT.
void stand_still(uint64_t ms) {
  const uint64_t until_ns = monotonic_ns() + ms * kNsPerMs;
  while (monotonic_ns() < until_ns) {
  }
}

TEST(Probe, AnAnswerThatIsInTheSocketCountsThoughThePauseOutlastedTheDeadline) {
  EventLoop loop;
  MuteSocket origin;
  ProbeTarget target;
  target.type = ProbeType::http;
  target.endpoint = origin.endpoint;
  target.path = "/healthz";
  target.timeout_ms = 1'000;
  std::optional<ProbeResult> result;
  const auto attempt = start_probe(loop, target, [&](ProbeResult given) { result = std::move(given); });
  const UniqueFd client = origin.accept();
  char request[1024];
  ASSERT_TRUE(pump(loop, [&] { return ::recv(client.get(), request, sizeof request, MSG_DONTWAIT) > 0; }));
  const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
  ASSERT_EQ(::send(client.get(), answer.data(), answer.size(), 0), static_cast<ssize_t>(answer.size()));
  stand_still(target.timeout_ms + 1);
  loop.run_once(0);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->success) << result->reason;
}

TEST(Probe, TimeInWhichWeDidNotRunIsNotTheBackends) {
  EventLoop loop;
  Origin origin(loop);
  for (const ProbeType type : {ProbeType::http, ProbeType::tcp}) {
    ProbeTarget target;
    target.type = type;
    target.endpoint = origin.endpoint;
    target.path = "/healthz";
    target.timeout_ms = 300;
    std::optional<ProbeResult> result;
    const auto attempt = start_probe(loop, target, [&](ProbeResult given) { result = std::move(given); });
    stand_still(400);  // the request has not even been sent
    ASSERT_TRUE(pump(loop, [&] { return result.has_value(); }));
    EXPECT_TRUE(result->success) << result->reason;
  }
}

TEST(Probe, AnAttemptThatIsDroppedSaysNothingMore) {
  EventLoop loop;
  MuteSocket mute;
  ProbeTarget target;
  target.type = ProbeType::http;
  target.endpoint = mute.endpoint;
  target.timeout_ms = 10;
  bool answered = false;
  start_probe(loop, target, [&](const ProbeResult&) { answered = true; }).reset();
  bool later = false;
  Timer timer(loop, [&] { later = true; });
  timer.arm_after_ms(30);
  ASSERT_TRUE(pump(loop, [&] { return later; }));
  EXPECT_FALSE(answered);
}

std::string probed_yaml(const Endpoint& origin, const std::string& rise_fall = "rise: 2, fall: 2") {
  std::string yaml = edge_yaml();
  yaml.replace(yaml.find("  - name: origins\n"), 18, "  - name: origins\n    probe: alive\n");
  yaml.replace(yaml.find("port: 8080"), 10, "port: " + std::to_string(origin.port));
  yaml.replace(yaml.find("      - {name: origin2, addresses: [127.0.0.1], port: 8081}\n"), 60, "");
  return yaml + "probes:\n  - {name: alive, type: http, path: /healthz, interval: 20ms, timeout: 10s, " + rise_fall +
         "}\n";
}

class ProberTest : public ::testing::Test {
 protected:
  void SetUp() override { host.start(); }
  const HealthVerdict* record() {
    live_state = host.control->host_state().live_state();
    const auto found = live_state->health.find("backend/origins/origin1");
    return found == live_state->health.end() ? nullptr : &found->second;
  }
  bool becomes(bool up) {
    return pump(loop, [&] { return record() && record()->up == up; });
  }
  // Applies without running the loop.
  void apply_now(const std::string& yaml) {
    const ApplyOutcome outcome = apply(
        host.control->host_state(), examine_text("edge.yaml", yaml, files_from({}), nullptr), {"test", "", 0, false});
    ASSERT_EQ(outcome.status, ApplyOutcome::Status::committed) << outcome.error;
  }

  EventLoop loop;
  Host host{loop};
  std::shared_ptr<const LiveState> live_state;
};

TEST_F(ProberTest, TheFirstLookDecidesAndChangesNeedRiseAndFall) {
  Origin origin(loop);
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint)).status, 200);
  ASSERT_TRUE(becomes(true));
  const uint64_t sequence = live_state->sequence;
  origin.status = 500;
  const int asked = origin.asked;
  ASSERT_TRUE(becomes(false));
  EXPECT_GE(origin.asked, asked + 2);
  EXPECT_EQ(record()->reason, "status 500, expected 200");
  EXPECT_EQ(live_state->sequence, sequence + 1);
  origin.status = 200;
  ASSERT_TRUE(becomes(true));
}

TEST_F(ProberTest, AChangedVerdictStaysForTheTimeThatItIsHeld) {
  Origin origin(loop);
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint, "rise: 1, fall: 1, hold: 1h")).status, 200);
  ASSERT_TRUE(becomes(true));
  origin.status = 500;
  ASSERT_TRUE(becomes(false)) << "the first verdict is no change";
  const Counter& held = metrics().counter("tidegate_control_probes_held_total", "");
  const uint64_t held_before = held.value(), sequence = live_state->sequence;
  origin.status = 200;
  ASSERT_TRUE(pump(loop, [&] { return held.value() >= held_before + 5; })) << "what it answers meanwhile is counted";
  EXPECT_EQ(host.control->host_state().live_state()->sequence, sequence) << "nothing is written";
}

TEST_F(ProberTest, ABackendThatFlapsAtEachProbeIsWrittenRarely) {
  Origin origin(loop);
  origin.flaps = true;
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint, "rise: 1, fall: 1, hold: 100ms")).status, 200);
  const auto written = [&] { return host.control->host_state().live_state()->sequence; };
  ASSERT_TRUE(pump(loop, [&] { return !host.control->host_state().live_state()->health.empty(); }));
  const uint64_t began_ns = monotonic_ns(), began = written();
  const int asked = origin.asked;
  ASSERT_TRUE(pump(loop, [&] { return origin.asked >= asked + 40; }));
  const uint64_t holds = (monotonic_ns() - began_ns) / (100 * kNsPerMs) + 1;
  EXPECT_GT(written(), began) << "it is written nevertheless";
  EXPECT_LE(written(), began + holds);
}

TEST_F(ProberTest, ABackendThatNobodyHearsIsDownWithItsReason) {
  MuteSocket closed;
  closed.close();
  ASSERT_EQ(host.put_config(probed_yaml(closed.endpoint)).status, 200);
  ASSERT_TRUE(becomes(false));
  EXPECT_THAT(record()->reason, HasSubstr("refused"));
  EXPECT_THAT(host.call("GET", "/v1/health").body, HasSubstr("refused"));
}

TEST_F(ProberTest, OurOwnLimitIsNoVerdictOnABackend) {
  Origin origin(loop);
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint, "rise: 1, fall: 1")).status, 200);
  ASSERT_TRUE(becomes(true));
  // Wait until just after an attempt has ended. The next is one interval away, so none is running when no descriptors
  // are left.
  const Counter& looked = metrics().counter("tidegate_control_probes_total", "", {{"result", "success"}});
  const uint64_t looked_before = looked.value();
  ASSERT_TRUE(pump(loop, [&] { return looked.value() > looked_before; }));
  const Counter& unlooked = metrics().counter("tidegate_control_probes_total", "", {{"result", "own_limit"}});
  const uint64_t before = unlooked.value();
  {
    const NoFiles none;
    ASSERT_TRUE(pump(loop, [&] { return unlooked.value() >= before + 5; }));
    EXPECT_TRUE(record() && record()->up);
  }
  const int asked = origin.asked;
  ASSERT_TRUE(pump(loop, [&] { return origin.asked > asked; })) << "it is looked at again";
  EXPECT_TRUE(record() && record()->up);
}

TEST_F(ProberTest, AfterARestartTheWordOfBeforeStandsUntilItIsContradicted) {
  Origin origin(loop);
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint, "rise: 2, fall: 3")).status, 200);
  ASSERT_TRUE(becomes(true));
  const uint64_t since_ns = record()->since_ns;
  host.stop();
  origin.status = 500;
  const int asked = origin.asked;
  host.start();
  ASSERT_TRUE(record() && record()->up);
  EXPECT_EQ(record()->since_ns, since_ns);
  ASSERT_TRUE(becomes(false));
  EXPECT_GE(origin.asked, asked + 3);
}

TEST_F(ProberTest, TheWordGoesWithItsBackend) {
  Origin origin(loop);
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint)).status, 200);
  ASSERT_TRUE(becomes(true));
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  EXPECT_TRUE(pump(loop, [&] { return record() == nullptr; }));
}

TEST_F(ProberTest, ABackendThatIsBackBeforeItsWordWentKeepsIt) {
  Origin origin(loop);
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint)).status, 200);
  ASSERT_TRUE(becomes(true));
  apply_now(edge_yaml());
  apply_now(probed_yaml(origin.endpoint));
  const int asked = origin.asked;
  ASSERT_TRUE(pump(loop, [&] { return origin.asked >= asked + 3; }));
  EXPECT_NE(record(), nullptr);
}

TEST_F(ProberTest, ManyVerdictsAtOnceAreFewCommits) {
  MuteSocket closed;
  closed.close();
  std::string yaml = probed_yaml(closed.endpoint);
  std::string backends;
  for (int i = 0; i < 100; ++i) {
    backends += "      - {name: b" + std::to_string(i) +
                ", addresses: [127.0.0.1], port: " + std::to_string(closed.endpoint.port) + "}\n";
  }
  yaml.replace(yaml.find("listeners:"), 0, backends);
  const HttpResponse put = host.put_config(yaml);
  ASSERT_EQ(put.status, 200) << put.body;
  ASSERT_TRUE(pump(loop, [&] { return host.control->host_state().live_state()->health.size() == 101; }));
  EXPECT_LT(host.control->host_state().live_state()->sequence, 60u)
      << "probes are spread over 20 ms and gathered in 2 ms";
}

TEST_F(ProberTest, WhatCannotBeStoredIsToldOnceAndStoredWhenItCan) {
  Origin origin(loop);
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint)).status, 200);
  ASSERT_TRUE(becomes(true));
  const Counter& unstored = metrics().counter("tidegate_control_health_commit_failures_total", "");
  const uint64_t before = unstored.value();
  ::testing::internal::CaptureStderr();
  {
    const FullDisk full;
    origin.status = 500;
    EXPECT_TRUE(pump(loop, [&] { return unstored.value() >= before + 3; }));
    EXPECT_TRUE(record()->up) << "not before it is durable";
  }
  EXPECT_TRUE(becomes(false));
  const std::string told = ::testing::internal::GetCapturedStderr();
  const auto count = [&told](const std::string& text) {
    size_t found = 0;
    for (size_t at = told.find(text); at != std::string::npos; at = told.find(text, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("cannot store"), 1U) << told;
  EXPECT_EQ(count("can be stored again"), 1U) << told;
}

TEST_F(ProberTest, AProbeThatChangesGoesOnFromAVerdictThatIsNotStoredYet) {
  Origin origin(loop);
  ASSERT_EQ(host.put_config(probed_yaml(origin.endpoint)).status, 200);
  ASSERT_TRUE(becomes(true));
  const Counter& unstored = metrics().counter("tidegate_control_health_commit_failures_total", "");
  const uint64_t before = unstored.value(), sequence = live_state->sequence;
  {
    const FullDisk full;
    origin.status = 500;
    ASSERT_TRUE(pump(loop, [&] { return unstored.value() >= before + 3; }));
  }
  origin.status = 200;
  apply_now(probed_yaml(origin.endpoint, "rise: 1, fall: 1"));
  ASSERT_TRUE(pump(loop, [&] { return host.control->host_state().live_state()->sequence > sequence; }))
      << "it is stored";
  EXPECT_TRUE(becomes(true));
}

}  // namespace tidegate::testing::prober_test
