// SPDX-License-Identifier: Apache-2.0
// Long work outside of the loop: the API answers meanwhile, changes keep their order, and the queue has a bound.

#include <future>
#include <stdexcept>
#include <thread>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/objects.h"
#include "control/api/background.h"
#include "control/limits.h"
#include "core/metrics.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::long_calls_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(BackgroundWork, IsDoneElsewhereInOrderAndToldOnTheLoop) {
  EventLoop loop;
  Background background(loop, "test", 4);
  const std::thread::id here = std::this_thread::get_id();
  std::vector<int> told;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(background.run([i, here] { return std::this_thread::get_id() == here ? -1 : i; },
                               [&, here](std::optional<int> done) {
                                 EXPECT_EQ(std::this_thread::get_id(), here);
                                 told.push_back(done.value_or(-2));
                               }));
  }
  ASSERT_TRUE(pump(loop, [&] { return told.size() == 4; }));
  EXPECT_THAT(told, ElementsAre(0, 1, 2, 3));
}

TEST(BackgroundWork, ThatThrowsIsToldAsNothingAndTheNextIsDone) {
  EventLoop loop;
  Background background(loop, "test", 4);
  std::vector<bool> told;
  const auto note = [&](const std::optional<int>& done) { told.push_back(done.has_value()); };
  ASSERT_TRUE(background.run([]() -> int { throw std::runtime_error("no"); }, note));
  ASSERT_TRUE(background.run([] { return 1; }, note));
  ASSERT_TRUE(pump(loop, [&] { return told.size() == 2; }));
  EXPECT_THAT(told, ElementsAre(false, true));
}

TEST(BackgroundWork, HasABoundAndLeavesNothingBehind) {
  EventLoop loop;
  const auto witness = std::make_shared<int>(0);
  size_t told = 0;
  {
    Background background(loop, "test", 3);
    std::mutex gate;
    std::unique_lock closed(gate);
    size_t taken = 0;
    const auto work = [&gate, witness] { return std::lock_guard(gate), 1; };
    while (background.run(work, [&told, witness](std::optional<int>) { ++told; })) ++taken;
    EXPECT_EQ(taken, 3u);
    closed.unlock();
    ASSERT_TRUE(pump(loop, [&] { return told > 0; }));
    background.discard(witness);
  }
  loop.run_once(0);  // posted work finds the server gone
  EXPECT_EQ(witness.use_count(), 1);
}

// A state on a loop, with a version that is written when the gate opens.
class VersionsBesideTheLoop : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<HostState>> opened = HostState::open(directory_ / "state");
    ASSERT_TRUE(opened) << opened.error().message;
    state_ = *std::move(opened);
    state_->write_versions_beside(loop_);
  }
  // Commits a version. Its `name` is recorded when that is done.
  void write(const std::string& name, std::shared_future<void> gate = {}) {
    state_->decide_version<Result<Manifest>>(
        [this, name, gate]() -> Result<Manifest> {
          if (gate.valid()) {
            begun_.set_value();
            gate.wait();
          }
          return state_->commit({{"pools", name, "{}"}}, {std::make_shared<Model>(), nullptr},
                                state_->manifest().version, "me", name, 0, {});
        },
        [this, name](const Result<Manifest>& written) { told_.push_back(written ? name : written.error().message); });
  }
  void drain_site(const std::string& site) {
    state_->decide<Result<uint64_t>>(
        [this, site] { return state_->set_override(site_key(site), Override{}, "me"); },
        [this, site](const Result<uint64_t>& written) { told_.push_back(written ? site : written.error().message); });
  }

  TemporaryDirectory directory_;
  EventLoop loop_;
  std::vector<std::string> told_;
  std::promise<void> opened_, begun_;
  std::shared_future<void> gate_ = opened_.get_future().share();
  std::unique_ptr<HostState> state_;
};

TEST_F(VersionsBesideTheLoop, TheLoopRunsOnAndOtherWritesWaitForTheirTurn) {
  size_t changes = 0;
  state_->subscribe([&](const HostStateChange& change) { changes += change.version; });
  write("a", gate_);
  drain_site("eu");
  write("b");
  drain_site("us");
  for (int i = 0; i < 20; ++i) loop_.run_once(kNsPerMs);
  EXPECT_THAT(told_, ElementsAre()) << "nothing is committed, and the loop was not stopped";
  EXPECT_EQ(state_->manifest().version, 0u);
  opened_.set_value();
  ASSERT_TRUE(pump(loop_, [&] { return told_.size() == 4; }));
  EXPECT_THAT(told_, ElementsAre("a", "eu", "b", "us"));
  EXPECT_EQ(state_->manifest().version, 2u);
  EXPECT_EQ(state_->manifest().comment, "b");
  EXPECT_EQ(state_->live_state()->overrides.size(), 2u);
  EXPECT_EQ(changes, 2u);
}

TEST_F(VersionsBesideTheLoop, AWriteOfAnotherRoleComesAfterIt) {
  write("a", gate_);
  opened_.set_value();
  ASSERT_TRUE(state_->set_site_verdicts({{backend_key("p", "b"), HealthVerdict{}}}));
  EXPECT_EQ(state_->manifest().version, 1u) << "it is taken up first";
  ASSERT_TRUE(pump(loop_, [&] { return !told_.empty(); }));
  EXPECT_THAT(told_, ElementsAre("a"));
}

TEST_F(VersionsBesideTheLoop, AtTheEndItIsCommittedAndWhatWaitsIsNot) {
  write("a", gate_);
  write("b");
  begun_.get_future().wait();
  opened_.set_value();
  state_->forget_waiting();
  loop_.run_once(0);
  EXPECT_THAT(told_, ElementsAre());
  state_.reset();
  const Result<std::unique_ptr<HostState>> again = HostState::open(directory_ / "state");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ((*again)->manifest().comment, "a");
}

TEST_F(VersionsBesideTheLoop, AWriteThatBreaksOffIsAFailureAndTheNextOneIsMade) {
  state_->decide_version<Result<Manifest>>(
      []() -> Result<Manifest> { throw std::runtime_error("no memory"); },
      [this](const Result<Manifest>& written) { told_.push_back(written ? "written" : written.error().message); });
  write("b");
  ASSERT_TRUE(pump(loop_, [&] { return told_.size() == 2; }));
  EXPECT_THAT(told_, ElementsAre(HasSubstr("broke off"), "b"));
}

// The objects of a document with so many pools, and one that says their order.
std::vector<ConfigObject> pools(size_t count) {
  std::vector<ConfigObject> objects;
  nlohmann::json order = nlohmann::json::array();
  for (size_t i = 0; i < count; ++i) {
    const std::string name = "p" + std::to_string(i);
    const nlohmann::json backend = {{"name", "b"}, {"addresses", {"192.0.2.1"}}, {"port", 80}};
    objects.push_back({"pools", name, nlohmann::json{{"name", name}, {"backends", {backend}}}.dump()});
    order.push_back(name);
  }
  objects.push_back({kOrderKind, "pools", order.dump()});
  return objects;
}

// A journal that decides when the test says so.
class PatientJournal : public WriteJournal {
 public:
  void append(std::shared_ptr<const WriteSet> set, std::function<void(Result<JournalPosition>)> done) override {
    sets.push_back(std::move(set));
    done_ = std::move(done);
  }
  void not_stored(const Error&) override { ++lost; }
  void left_position() override {}
  void decide(Result<JournalPosition> position) { std::exchange(done_, nullptr)(std::move(position)); }

  std::vector<std::shared_ptr<const WriteSet>> sets;
  size_t lost = 0;

 private:
  std::function<void(Result<JournalPosition>)> done_;
};

class DecidedVersionsBesideTheLoop : public VersionsBesideTheLoop {
 protected:
  void SetUp() override {
    VersionsBesideTheLoop::SetUp();
    state_->set_journal(&journal_);
  }
  bool appended(size_t writes) {
    return pump(loop_, [&] { return journal_.sets.size() == writes; });
  }
  // The whole state of another host, with one version of so many pools.
  static std::shared_ptr<const WriteSet> of_another_host(size_t count, const std::string& comment) {
    const TemporaryDirectory directory;
    const auto other = HostState::open(directory / "state");
    EXPECT_TRUE((*other)->commit(pools(count), {std::make_shared<Model>(), nullptr}, 0, "other", comment, 0, {}));
    JournalPosition ignored;
    return std::make_shared<const WriteSet>((*other)->store().everything(ignored).value());
  }

  PatientJournal journal_;
};

TEST_F(DecidedVersionsBesideTheLoop, AreTriedAndStoredWhileTheLoopRunsOn) {
  write("a", gate_);
  drain_site("eu");
  for (int i = 0; i < 20; ++i) loop_.run_once(kNsPerMs);
  EXPECT_TRUE(journal_.sets.empty()) << "it is being tried, and the loop was not stopped";
  opened_.set_value();
  ASSERT_TRUE(appended(1));
  EXPECT_EQ(state_->head().version, 0u) << "nothing is stored before it is decided";
  journal_.decide(JournalPosition{1, "first"});
  EXPECT_THAT(told_, ElementsAre()) << "it is being stored, and the loop was not stopped";
  ASSERT_TRUE(appended(2));
  EXPECT_THAT(told_, ElementsAre("a"));
  EXPECT_EQ(state_->manifest().comment, "a");
  EXPECT_EQ(state_->store().journal_position()->digest, "first");
  journal_.decide(JournalPosition{2, "second"});
  EXPECT_THAT(told_, ElementsAre("a", "eu"));
}

TEST_F(DecidedVersionsBesideTheLoop, WhatIsNotDecidedLeavesNoTrace) {
  write("a");
  ASSERT_TRUE(appended(1));
  journal_.decide(fail("not decided: no"));
  EXPECT_THAT(told_, ElementsAre("not decided: no"));
  EXPECT_EQ(state_->store().head()->version, 0u);
  write("b");
  ASSERT_TRUE(appended(2));
  journal_.decide(JournalPosition{1, "first"});
  ASSERT_TRUE(pump(loop_, [&] { return told_.size() == 2; }));
  EXPECT_EQ(state_->manifest().version, 1u);
  EXPECT_EQ(state_->manifest().comment, "b");
}

TEST_F(DecidedVersionsBesideTheLoop, AWriteThatBreaksOffLeavesNoTrial) {
  state_->decide_version<Result<Manifest>>(
      []() -> Result<Manifest> { throw std::runtime_error("no memory"); },
      [this](const Result<Manifest>& written) { told_.push_back(written ? "written" : written.error().message); });
  write("b");
  ASSERT_TRUE(appended(1));
  EXPECT_THAT(told_, ElementsAre(HasSubstr("broke off")));
}

TEST_F(DecidedVersionsBesideTheLoop, AWriteOfAnotherHostVoidsATrial) {
  write("a", gate_);
  begun_.get_future().wait();
  opened_.set_value();
  size_t adopted = 0;
  state_->adopt(of_another_host(1, "theirs"), {7, "theirs"}, [&](const Result<void>& result) {
    ASSERT_TRUE(result) << result.error().message;
    ++adopted;
  });
  ASSERT_TRUE(pump(loop_, [&] { return adopted == 1 && told_.size() == 1; }));
  EXPECT_THAT(told_, ElementsAre(HasSubstr("another write came first")));
  EXPECT_TRUE(journal_.sets.empty());
  EXPECT_EQ(state_->manifest().comment, "theirs");
}

TEST_F(DecidedVersionsBesideTheLoop, ALargeWriteOfAnotherHostIsStoredAndReadThere) {
  size_t adopted = 0, changes = 0;
  state_->subscribe([&](const HostStateChange& change) { changes += change.version; });
  const auto note = [&](const Result<void>& result) { adopted += static_cast<bool>(result); };
  state_->adopt(of_another_host(200, "theirs"), {7, "seven"}, note);
  EXPECT_EQ(adopted + changes, 0u) << "the loop goes on";
  state_->settle();  // whoever needs the state waits for it
  EXPECT_EQ(changes, 1u);
  EXPECT_EQ(state_->manifest().entries.size(), 201u);
  ASSERT_TRUE(pump(loop_, [&] { return adopted == 1; }));
  EXPECT_EQ(changes, 1u);
  // A write set that does not follow the last one is not adopted.
  Result<void> result;
  auto next = std::make_shared<WriteSet>();
  next->changes.push_back({"sys", "purge", std::nullopt});
  state_->adopt(next, {9, "nine"}, [&](const Result<void>& of) { result = of; });
  EXPECT_THAT(result.error().message, HasSubstr("write 9 does not follow write 7"));
}

TEST_F(VersionsBesideTheLoop, ALargeVersionOfALeaderIsStoredAndReadThere) {
  const TemporaryDirectory directory;
  const auto leader = HostState::open(directory / "state");
  const Result<Manifest> committed =
      (*leader)->commit(pools(200), {std::make_shared<Model>(), nullptr}, 0, "leader", "large", 0, {});
  ASSERT_TRUE(committed) << committed.error().message;
  const Manifest& manifest = (*leader)->manifest();
  HostState::NewObjects bytes;
  for (const ManifestEntry& entry : manifest.entries) {
    bytes.emplace_back(entry.hash, (*leader)->store().object(entry.hash).value());
  }
  std::optional<Result<void>> replicated;
  state_->replicate_version(manifest, bytes, [&](const Result<void>& result) { replicated = result; });
  EXPECT_FALSE(replicated.has_value()) << "the loop goes on";
  EXPECT_EQ(state_->manifest().version, 0u);
  ASSERT_TRUE(pump(loop_, [&] { return replicated.has_value(); }));
  ASSERT_TRUE(*replicated) << replicated->error().message;
  EXPECT_EQ(state_->manifest().comment, "large");
  ASSERT_NE(state_->model(), nullptr);
  EXPECT_EQ(state_->model()->pools.size(), 200u);
}

// Some thousand routes: enough work to block the loop noticeably if it ran there.
std::string large_yaml(int routes = 1'000) {
  std::string more;
  for (int i = 0; i < routes; ++i)
    more += "  - {name: r" + std::to_string(i) + ", path: /" + std::to_string(i) + ", status: 404}\n";
  return edge_yaml("100", more);
}

class CallsBesideTheLoop : public ::testing::Test {
 protected:
  void SetUp() override {
    host.start();
    ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  }
  // A request that was sent. It is answered while the loop runs.
  struct Sent {
    std::optional<HttpResponse> answer;
    std::unique_ptr<HttpCall> call;
  };
  std::unique_ptr<Sent> send(const std::string& method, const std::string& target, std::string body,
                             const std::string& type = "application/yaml") {
    auto sent = std::make_unique<Sent>();
    HttpTarget socket;
    socket.unix_path = host.options.run_dir + "/control.sock";
    HttpClientRequest request;
    request.method = method;
    request.target = target;
    request.host = "control";
    request.headers = {{"Content-Type", type}, {"If-Match", "*"}};
    request.body = std::move(body);
    request.timeout_ms = kPatienceMs;
    sent->call = http_call(loop, socket, std::move(request), [sent = sent.get()](Result<HttpResponse> response) {
      if (response) sent->answer = *std::move(response);
    });
    return sent;
  }
  bool answered(const Sent& sent) {
    return pump(loop, [&] { return sent.answer.has_value(); });
  }

  EventLoop loop;
  Host host{loop};
};

TEST_F(CallsBesideTheLoop, TheApiAnswersWhileALargeDocumentIsExamined) {
  const auto dry_run = send("PUT", "/v1/config?dry_run=true", large_yaml());
  size_t served = 0;
  while (!dry_run->answer) {
    ASSERT_EQ(host.call("GET", "/healthz").status, 200);
    if (!dry_run->answer) ++served;
  }
  EXPECT_EQ(dry_run->answer->status, 200) << dry_run->answer->body;
  EXPECT_EQ(body_of(*dry_run->answer)["outcome"], "dry_run");
  EXPECT_GE(served, 5u);
  // Reading it takes long too.
  ASSERT_EQ(host.put_config(large_yaml()).status, 200);
  const auto read = send("GET", "/v1/config", "", "");
  for (served = 0; !read->answer; served += !read->answer) ASSERT_EQ(host.call("GET", "/healthz").status, 200);
  EXPECT_GE(served, 5u);
}

TEST_F(CallsBesideTheLoop, ChangesMadeAtOnceAllCount) {
  const auto large = send("PUT", "/v1/config", large_yaml());
  const auto patch = send("PATCH", "/v1/config", R"({"geo": {"default_site": "eu"}})", "application/merge-patch+json");
  const auto object = send("PUT", "/v1/config/routes/late", "{path: /late, status: 410}");
  for (const auto* sent : {&large, &patch, &object}) {
    ASSERT_TRUE(answered(**sent));
    EXPECT_EQ((*sent)->answer->status, 200) << (*sent)->answer->body;
  }
  const nlohmann::json document = body_of(host.call("GET", "/v1/config", "", {{"Accept", "application/json"}}));
  EXPECT_EQ(document["routes"].size(), 1'002u);
  EXPECT_EQ(document["geo"]["default_site"], "eu");
  EXPECT_EQ(host.control->host_state().head().version, 4u);
}

TEST_F(CallsBesideTheLoop, AStaleTagIsFoundOutThoughItWasFreshWhenTheCallCame) {
  const std::string tag = header(host.call("GET", "/v1/config"), "etag");
  const Counter& calls = metrics().counter("tidegate_control_api_calls_total", "");
  const uint64_t before = calls.value();
  const auto large = send("PUT", "/v1/config", large_yaml());
  ASSERT_TRUE(pump(loop, [&] { return calls.value() > before; })) << "it is under way";
  const HttpResponse late = host.put_config(edge_yaml("7"), tag);
  ASSERT_TRUE(answered(*large));
  EXPECT_EQ(large->answer->status, 200);
  EXPECT_EQ(late.status, 412) << late.body;
}

TEST_F(CallsBesideTheLoop, AsManyWaitAsMayAndTheNextIsToldWhenToComeBack) {
  std::vector<std::unique_ptr<Sent>> sent;
  sent.push_back(send("PUT", "/v1/config?dry_run=true", large_yaml()));
  for (size_t i = 0; i < kMaxLongCalls + 2; ++i) {
    sent.push_back(send("PATCH", "/v1/config?dry_run=true", "{}", "application/merge-patch+json"));
  }
  size_t busy = 0;
  for (const auto& each : sent) {
    ASSERT_TRUE(answered(*each));
    if (each->answer->status == 200) continue;
    ++busy;
    EXPECT_EQ(each->answer->status, 503);
    EXPECT_EQ(header(*each->answer, "retry-after"), "1");
    EXPECT_THAT(each->answer->body, HasSubstr("busy"));
  }
  EXPECT_EQ(busy, 3u);
  EXPECT_EQ(host.put_config(edge_yaml("7")).status, 200) << "afterwards there is room again";
}

TEST_F(CallsBesideTheLoop, AControlThatEndsMeanwhileEndsInPeace) {
  const auto large = send("PUT", "/v1/config", large_yaml());
  ASSERT_TRUE(pump(loop, [&] { return host.call("GET", "/healthz").status == 200; }));
  host.stop();
  loop.run_once(0);
}

}  // namespace tidegate::testing::long_calls_test
