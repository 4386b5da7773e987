// SPDX-License-Identifier: Apache-2.0
// The answers to POSTs are remembered, even if control is killed at any time.
#include "control/api/idempotency.h"

#include "control/host_state.h"
#include "core/crypto.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::idempotency_test {

namespace fs = std::filesystem;
using Verdict = Idempotency::Verdict;

class KeptAnswers : public ::testing::Test {
 protected:
  void SetUp() override { open(); }
  void open() {
    posts.reset();
    host_state.reset();
    Result<std::unique_ptr<HostState>> opened = HostState::open(directory / "state");
    ASSERT_TRUE(opened) << opened.error().message;
    host_state = *std::move(opened);
    posts = std::make_unique<Idempotency>(*host_state);
  }
  Idempotency::Lookup begin(const OnceOnly& request) {
    Result<Idempotency::Lookup> lookup = posts->begin(request);
    EXPECT_TRUE(lookup) << lookup.error().message;
    return lookup ? *std::move(lookup) : Idempotency::Lookup{};
  }

  TemporaryDirectory directory;
  std::unique_ptr<HostState> host_state;
  std::unique_ptr<Idempotency> posts;
  const OnceOnly once = {"request", "digest"};
};

TEST_F(KeptAnswers, AreThereAfterARestartByteForByte) {
  HttpResponse answer = HttpResponse::json(200, std::string("{\"n\":1}\xff\0", 9));
  answer.headers.emplace_back("ETag", "\"1\"");
  ASSERT_EQ(begin(once).verdict, Verdict::fresh);
  posts->finish(once, answer, [] {});
  open();
  const Idempotency::Lookup again = begin(once);
  ASSERT_EQ(again.verdict, Verdict::repeated);
  EXPECT_EQ(again.answer->status, 200);
  EXPECT_EQ(again.answer->headers, answer.headers);
  EXPECT_EQ(again.answer->body, answer.body);
  EXPECT_EQ(begin({"request", "other"}).verdict, Verdict::other_body);
  EXPECT_EQ(begin({"elsewhere", "digest"}).verdict, Verdict::fresh);
}

TEST_F(KeptAnswers, WhatIsUnderWayIsNotDoneASecondTimeAndWhatWasNeverAnsweredIsFreshAgain) {
  ASSERT_EQ(begin(once).verdict, Verdict::fresh);
  EXPECT_EQ(begin(once).verdict, Verdict::under_way);
  EXPECT_EQ(begin({"request", "other"}).verdict, Verdict::other_body);
  posts->abandon(once);
  EXPECT_EQ(begin(once).verdict, Verdict::fresh);
  open();
  EXPECT_EQ(begin(once).verdict, Verdict::fresh);
}

TEST_F(KeptAnswers, ARecordThatCannotBeReadIsNone) {
  ASSERT_TRUE(host_state->keep_answer({once.request, "of another release"}));
  EXPECT_EQ(begin(once).verdict, Verdict::fresh);
}

// A control that is killed after its commit and before its answer. It leaves its state to the next control.
class ControlThatDies : public ::testing::Test {
 protected:
  void SetUp() override {
    host.start();
    host.control->host_state().subscribe([this](const HostStateChange&) {
      fs::remove_all(successor.options.state_dir);
      fs::copy(host.options.state_dir, successor.options.state_dir, fs::copy_options::recursive);
    });
  }
  // The answers to the first request and to its repetition, which goes to the next control.
  std::pair<HttpResponse, HttpResponse> post_twice(const std::string& target, const nlohmann::json& body) {
    HttpResponse first = host.call_json("POST", target, body, key);
    successor.start();
    return {std::move(first), successor.call_json("POST", target, body, key)};
  }

  const Headers key = {{"Idempotency-Key", "k-1"}};
  EventLoop loop;
  Host host{loop}, successor{loop};
};

TEST_F(ControlThatDies, HasThePurgeAndItsAnswerInOneCommit) {
  const auto [first, again] = post_twice("/v1/purge", {{"all", true}});
  ASSERT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(successor.control->host_state().head().purge, 1u);
  EXPECT_EQ(successor.call_json("POST", "/v1/purge", {{"tag", "news"}}, key).status, 422);
}

TEST_F(ControlThatDies, HasTheRollbackAndItsAnswerInOneCommit) {
  ASSERT_EQ(host.put_config(edge_yaml("1")).status, 200);
  ASSERT_EQ(host.put_config(edge_yaml("2")).status, 200);
  const auto [first, again] = post_twice("/v1/rollback", {{"to", 1}});
  ASSERT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(body_of(first)["outcome"], "committed");
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(header(again, "etag"), header(first, "etag"));
  EXPECT_EQ(successor.control->host_state().head().version, 3u);
}

TEST_F(ControlThatDies, TellsOfThePurgeAloneWhenItDiedWhileItWaitedForThePlanes) {
  const auto [first, again] = post_twice("/v1/purge?wait=true", {{"all", true}});
  ASSERT_EQ(first.status, 200) << first.body;
  EXPECT_TRUE(body_of(first)["converged"].get<bool>());
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(body_of(again), (nlohmann::json{{"outcome", "committed"}, {"sequence", 1}}));
  EXPECT_EQ(successor.control->host_state().head().purge, 1u);
}

TEST(RepeatedPost, OfAClientThatLeftWhileItWaitedIsNotDoneAgain) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  FakePlane l7(loop, host.options.run_dir, "l7");  // it never applies the version
  const nlohmann::json body = {{"all", true}};
  const Headers key = {{"Idempotency-Key", "k-1"}};
  HttpTarget socket;
  socket.unix_path = host.options.run_dir + "/control.sock";
  HttpClientRequest request;
  request.method = "POST";
  request.target = "/v1/purge?wait=true&timeout=60000";
  request.host = "control";
  request.headers = {{"Content-Type", "application/json"}, key.front()};
  request.body = body.dump();
  request.timeout_ms = kPatienceMs;
  auto call = http_call(loop, socket, request, [](const Result<HttpResponse>&) { ADD_FAILURE() << "it was answered"; });
  ASSERT_TRUE(pump(loop, [&] { return host.control->host_state().head().purge == 1; }));
  EXPECT_EQ(host.call_json("POST", request.target, body, key).status, 409);
  call.reset();
  HttpResponse again;
  ASSERT_TRUE(pump(loop, [&] {
    again = host.call_json("POST", request.target, body, key);
    return again.status != 409;
  }));
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(body_of(again), (nlohmann::json{{"outcome", "committed"}, {"sequence", 1}}));
  EXPECT_EQ(host.control->host_state().head().purge, 1u);
}

TEST(RepeatedPost, WithTheKeyOfAnotherTokenOfItsNameIsARequestOfItsOwn) {
  EventLoop loop;
  Host host(loop);
  host.directory.write("tokens",
                       "operator first-token-0123456789\noperator second-token-0123456789\n"
                       "operator third-token-0123456789 ops\noperator fourth-token-0123456789 ops\n");
  host.start();
  const Headers headers = {{"Idempotency-Key", "k-1"}, {"Content-Type", "application/json"}};
  const auto purge = [&](const char* token, const char* body) {
    return host.call_as(token, "POST", "/v1/purge", body, headers);
  };
  uint64_t sequence = 0;
  for (const char* token :
       {"first-token-0123456789", "second-token-0123456789", "third-token-0123456789", "fourth-token-0123456789"}) {
    EXPECT_EQ(body_of(purge(token, R"({"all":true})"))["sequence"], ++sequence) << token;
  }
  EXPECT_EQ(body_of(purge("first-token-0123456789", R"({"all":true})"))["sequence"], 1u) << "its own repetition";
  EXPECT_EQ(purge("second-token-0123456789", R"({"tag":"x"})").status, 422) << "its own key with another body";
  EXPECT_EQ(body_of(host.call_json("POST", "/v1/purge", {{"all", true}}, headers))["sequence"], 5u) << "the uid's own";
  EXPECT_EQ(host.control->host_state().head().purge, 5u);
}

// An earlier release stored the answer under the name of the caller: sha256("NAME TARGET\nKEY").
TEST(RepeatedPost, OfAnEarlierReleaseIsAnsweredWhereItsNameIsOnesOwnAndNeverToAnother) {
  EventLoop loop;
  Host host(loop);
  host.directory.write("tokens",
                       "operator first-token-0123456789\noperator second-token-0123456789\n"
                       "operator third-token-0123456789 ops\n");
  host.start();
  const std::string body = R"({"all":true})";
  for (const char* name : {"operator", "ops"}) {
    const OnceOnly once = {sha256_hex(std::string(name) + " /v1/purge\nk-1"), sha256_hex(body)};
    ASSERT_TRUE(
        host.control->host_state().keep_answer(kept_answer(once, HttpResponse::json(200, R"({"sequence":77})"))));
  }
  const Headers headers = {{"Idempotency-Key", "k-1"}, {"Content-Type", "application/json"}};
  const auto sequence = [&](const char* token) {
    return body_of(host.call_as(token, "POST", "/v1/purge", body, headers))["sequence"];
  };
  EXPECT_EQ(sequence("third-token-0123456789"), 77u);
  EXPECT_EQ(sequence("first-token-0123456789"), 1u);
  EXPECT_EQ(sequence("second-token-0123456789"), 2u);
}

TEST(RepeatedPost, ThatChangesNothingNeedsNoKey) {
  EventLoop loop;
  Host host(loop);
  host.start();
  const Headers key = {{"Idempotency-Key", "k-1"}};
  ASSERT_EQ(body_of(host.call("POST", "/v1/status/wait?timeout=1", "", key))["converged"], true);
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  FakePlane l7(loop, host.options.run_dir, "l7");  // it runs version 0
  const HttpResponse again = host.call("POST", "/v1/status/wait?timeout=1", "", key);
  EXPECT_FALSE(body_of(again)["converged"].get<bool>()) << "it was asked anew";
}

}  // namespace tidegate::testing::idempotency_test
