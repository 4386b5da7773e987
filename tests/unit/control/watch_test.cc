// SPDX-License-Identifier: Apache-2.0
// Watch: events as they happen, and events that were missed.

#include "control/api/watch.h"

#include "tests/unit/control/host.h"

namespace tidegate::testing::watch_test {

using ::testing::HasSubstr;
using ::testing::Not;

class Watcher {
 public:
  Watcher(EventLoop& loop, const Host& host, const std::string& last_event_id = {}) {
    HttpTarget target;
    target.unix_path = host.options.run_dir + "/control.sock";
    HttpClientRequest request;
    request.target = "/v1/watch";
    request.timeout_ms = 0;
    if (!last_event_id.empty()) request.headers.emplace_back("Last-Event-ID", last_event_id);
    stream_ = http_stream(
        loop, target, request, [this](std::string_view bytes) { text += bytes; },
        [this](const Result<HttpResponse>&) { ended = true; });
  }
  std::string text;
  bool ended = false;

 private:
  std::unique_ptr<HttpCall> stream_;
};

bool saw(EventLoop& loop, Watcher& watcher, const std::string& what) {
  return pump(loop, [&] { return watcher.text.find(what) != std::string::npos; });
}

TEST(Watch, TellsOfVersionsWordsPurgesAndWhatThePlanesApplied) {
  EventLoop loop;
  Host host(loop);
  host.start();
  FakePlane l7(loop, host.options.run_dir, "l7");
  Watcher watcher(loop, host);
  ASSERT_TRUE(saw(loop, watcher, "event: hello"));
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  ASSERT_TRUE(saw(loop, watcher, "event: version"));
  l7.status["version"] = 1;
  ASSERT_TRUE(saw(loop, watcher, "event: applied"));
  ASSERT_EQ(host.call_json("PUT", "/v1/admin/pool/origins", {{"state", "drained"}}).status, 200);
  ASSERT_TRUE(saw(loop, watcher, "pool/origins"));
  ASSERT_EQ(host.call_json("POST", "/v1/purge", {{"tag", "news"}}).status, 200);
  ASSERT_TRUE(saw(loop, watcher, "event: purge"));
  EXPECT_THAT(watcher.text, HasSubstr("id: 1.1.1\n"));
}

TEST(Watch, ResumesAfterTheLastEventThatWasSeen) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  ASSERT_EQ(host.put_config(edge_yaml("7"), "*", "?comment=missed").status, 200);
  ASSERT_EQ(host.call_json("POST", "/v1/purge", {{"tag", "news"}}).status, 200);
  Watcher resumed(loop, host, "1.0.0");
  ASSERT_TRUE(saw(loop, resumed, "event: purge"));
  EXPECT_THAT(resumed.text, HasSubstr("missed"));
  EXPECT_THAT(resumed.text, Not(HasSubstr("\"version\":1,")));
}

TEST(Watch, AnUnknownEventIdIsRefused) {
  EventLoop loop;
  Host host(loop);
  host.start();
  EXPECT_EQ(host.call("GET", "/v1/watch", "", {{"Last-Event-ID", "yesterday"}}).status, 400);
  EXPECT_EQ(parse_event_id("1.2"), std::nullopt);
  EXPECT_EQ(parse_event_id("1.2.3x"), std::nullopt);
  EXPECT_EQ(parse_event_id("1.2.3"), (StateHead{1, 2, 3}));
}

TEST(Watch, AControlThatEndsEndsItsStreams) {
  EventLoop loop;
  Host host(loop);
  host.start();
  Watcher watcher(loop, host);
  ASSERT_TRUE(saw(loop, watcher, "event: hello"));
  host.stop();
  EXPECT_TRUE(pump(loop, [&] { return watcher.ended; }));
}

}  // namespace tidegate::testing::watch_test
