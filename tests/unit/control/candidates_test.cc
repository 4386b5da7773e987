// SPDX-License-Identifier: Apache-2.0
// A change of the configuration and the votes of planes, over their real sockets.
#include "control/vote/candidates.h"

#include <fmt/format.h>

#include <deque>
#include <fstream>

#include "conf/provisional.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::candidates_test {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A plane that votes as the test says, or keeps the questions.
class VotingPlane {
 public:
  VotingPlane(EventLoop& loop, const std::string& run_dir, const std::string& plane)
      : server_(loop, [this](const HttpExchangePtr& exchange) { answer(exchange); }) {
    EXPECT_TRUE(server_.listen_unix(run_dir + "/" + plane + ".sock"));
  }
  Vote vote;
  bool keeps = false;   // the questions, without an answer
  size_t followed = 0;  // how many questions get the answer of a process that another one follows
  std::deque<HttpExchangePtr> kept;
  std::vector<CandidateVersion> asked;  // questions to prepare
  std::vector<std::string> released;    // ids
  void answer_kept() {
    for (const HttpExchangePtr& exchange : std::exchange(kept, {})) respond(exchange);
  }

 private:
  void answer(const HttpExchangePtr& exchange) {
    const HttpRequest& request = exchange->request();
    if (request.path == "/status") return exchange->respond(HttpResponse::json(200, R"({"version":0,"ready":true})"));
    if (request.path != "/candidate") return exchange->respond(HttpResponse::problem(404, "Not Found", ""));
    if (followed > 0) {
      --followed;
      return exchange->respond(HttpResponse::json(200, R"({"plane":"l7","state":"followed"})"));
    }
    if (request.method == "POST") {
      const Result<CandidateVersion> candidate = decode_candidate(request.body);
      ASSERT_TRUE(candidate) << candidate.error().message;
      asked.push_back(*candidate);
      if (keeps) return kept.push_back(exchange);
      return respond(exchange);
    }
    if (request.method == "DELETE") released.push_back(request.parameter("id").value_or(""));
    exchange->respond(HttpResponse::json(200, R"({"held":null})"));
  }
  void respond(const HttpExchangePtr& exchange) const { exchange->respond(HttpResponse::json(200, encode_vote(vote))); }
  HttpServer server_;
};

class CandidatesTest : public ::testing::Test {
 protected:
  void start(uint64_t prepare_timeout_ms = 20'000) {
    host.options.prepare_timeout_ms = prepare_timeout_ms;
    host.start();
    l7.emplace(loop, host.options.run_dir, "l7");
  }
  uint64_t in_force() { return host.control->host_state().head().version; }
  HttpResponse put_weight(const std::string& weight, const std::string& query = {}) {
    return host.call("PUT", "/v1/config/pools/origins" + query,
                     "backends: [{name: origin1, addresses: [127.0.0.1], port: 8080, weight: " + weight + "}]",
                     {{"Content-Type", "application/yaml"}, {"If-Match", "*"}});
  }
  // Begins a call without waiting for its answer.
  std::shared_ptr<std::optional<HttpResponse>> begin(const std::string& method, const std::string& target,
                                                     const std::string& body) {
    HttpTarget socket;
    socket.unix_path = host.options.run_dir + "/control.sock";
    HttpClientRequest request;
    request.method = method;
    request.target = target;
    request.host = "control";
    request.headers = {{"Content-Type", "application/yaml"}, {"If-Match", "*"}};
    request.body = body;
    request.timeout_ms = kPatienceMs;
    const auto answer = std::make_shared<std::optional<HttpResponse>>();
    calls_.push_back(http_call(loop, socket, request, [answer](Result<HttpResponse> response) {
      if (response) *answer = *std::move(response);
    }));
    return answer;
  }

  // Lets `other` follow `host`. Returns a function that makes a document with both.
  std::function<std::string(const std::string& weight)> follow(Host& other) {
    other.options.follow = host.control->tcp_endpoint();
    other.options.peer_token_file = other.directory.write("peer", kReplicaToken);
    other.start();
    host.options.peer_token_file = host.directory.write("peer", kReplicaToken);
    host.stop();
    host.options.listen = other.options.follow;
    host.start();
    return [management = other.control->tcp_endpoint()->to_string()](const std::string& weight) {
      std::string text = edge_yaml(weight);
      const size_t at = text.find("  - name: box\n");
      return text.insert(at, "  - {name: far, site: eu, management: \"" + management + "\", l7: {workers: 1}}\n");
    };
  }

  EventLoop loop;
  Host host{loop};
  std::optional<VotingPlane> l7;

 private:
  std::vector<std::unique_ptr<HttpCall>> calls_;
};

// With a second plane, which is not running.
std::string with_dns() {
  std::string text = edge_yaml();
  const std::string before = "    l7: {workers: 1}\n";
  return text.insert(text.find(before), "    dns: {listen: [\"127.0.0.1:5300\"]}\n");
}

json vote_of(const json& answer, const std::string& plane) {
  for (const json& vote : answer["votes"]) {
    if (vote["plane"] == plane) return vote;
  }
  return nullptr;
}

// After each answer of the old process, the new one gets the same question: the greeting, then the preparation.
TEST_F(CandidatesTest, AQuestionThatAFollowedProcessGotIsAskedAgain) {
  start();
  for (const size_t followed : {size_t{1}, size_t{2}}) {
    l7->followed = followed;
    const HttpResponse answer = host.put_config(edge_yaml(std::to_string(followed)));
    ASSERT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(vote_of(body_of(answer), "l7")["vote"], "yes") << answer.body;
    EXPECT_EQ(l7->followed, 0u);
  }
  l7->keeps = true;
  const auto answer = begin("PUT", "/v1/config", edge_yaml("7"));
  ASSERT_TRUE(pump(loop, [&] { return !l7->kept.empty(); })) << "it was greeted, and is to prepare";
  l7->keeps = false;
  for (const HttpExchangePtr& exchange : std::exchange(l7->kept, {})) {
    exchange->respond(HttpResponse::json(200, R"({"plane":"l7","state":"followed"})"));
  }
  ASSERT_TRUE(pump(loop, [&] { return answer->has_value(); }));
  EXPECT_EQ(vote_of(body_of(**answer), "l7")["vote"], "yes") << (*answer)->body;
}

TEST_F(CandidatesTest, AVersionThatThePlanesCanServeIsCommitted) {
  start();
  const HttpResponse answer = host.put_config(with_dns());
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(vote_of(body_of(answer), "l7")["vote"], "yes");
  EXPECT_EQ(vote_of(body_of(answer), "dns")["vote"], "unreachable") << "it does not run";
  ASSERT_EQ(l7->asked.size(), 1U);
  EXPECT_EQ(l7->asked[0].base, 0U);
  EXPECT_EQ(l7->asked[0].digest, host.control->host_state().manifest().digest);
  EXPECT_THAT(l7->released, ElementsAre());

  ASSERT_EQ(put_weight("50").status, 200);
  ASSERT_EQ(l7->asked.size(), 2U);
  EXPECT_EQ(l7->asked[1].base, 1U);
  EXPECT_EQ(l7->asked[1].changes.size(), 1U) << "one element";
  EXPECT_GT(l7->asked[1].id, l7->asked[0].id);
  EXPECT_EQ(l7->asked[1].digest, host.control->host_state().manifest().digest);

  const json counted = body_of(host.call("GET", "/v1/status/versions/2"));
  EXPECT_EQ(counted["prepared"], 1);
  EXPECT_EQ(counted["candidate"], l7->asked[1].id);
  EXPECT_EQ(host.call("GET", "/v1/status/versions/3").status, 404);
}

TEST_F(CandidatesTest, RefusedOnesOutlastControlAndADamagedFileIsNoObstacle) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  l7->vote = Vote::no("the disk is gone");
  EXPECT_EQ(put_weight("7").status, 409);
  EXPECT_EQ(put_weight("8").status, 409);
  const json before = body_of(host.call("GET", "/v1/candidates"));
  host.stop();
  host.start();
  EXPECT_EQ(body_of(host.call("GET", "/v1/candidates")), before);
  EXPECT_EQ(put_weight("9").status, 409);
  EXPECT_EQ(body_of(host.call("GET", "/v1/candidates"))["refused"].size(), 3U);
  for (const char* damage : {"", "{", "{}", "[1]", "[{}]", R"([{"candidate": "x"}])"}) {
    host.stop();
    std::ofstream(host.options.state_dir + "/refused.json") << damage;
    host.start();
    EXPECT_THAT(body_of(host.call("GET", "/v1/candidates"))["refused"], ::testing::IsEmpty()) << damage;
  }
  EXPECT_EQ(put_weight("9").status, 409);
  EXPECT_EQ(body_of(host.call("GET", "/v1/candidates"))["refused"].size(), 1U);
}

TEST_F(CandidatesTest, OneThatAPlaneCannotServeChangesNothingAndIsRemembered) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  l7->vote = Vote::no("listener http: cannot bind 127.0.0.1:80: Address already in use");
  for (const bool element : {true, false}) {
    const HttpResponse answer = element ? put_weight("7") : host.put_config(edge_yaml("7"));
    EXPECT_EQ(answer.status, 409);
    EXPECT_EQ(body_of(answer)["code"], "refused");
    EXPECT_THAT(body_of(answer)["reasons"][0], HasSubstr("box/l7: listener http: cannot bind 127.0.0.1:80"));
    EXPECT_EQ(in_force(), 1U);
    const std::string id = std::to_string(l7->asked.back().id);
    EXPECT_TRUE(pump(loop, [&] { return !l7->released.empty() && l7->released.back() == id; }));
    const json one = body_of(host.call("GET", "/v1/candidates/" + id));
    EXPECT_EQ(one["reasons"], body_of(answer)["reasons"]);
    EXPECT_EQ(one["base"], 1);
  }
  EXPECT_EQ(body_of(host.call("GET", "/v1/candidates"))["refused"].size(), 2U);
  EXPECT_EQ(host.call("GET", "/v1/candidates/17").status, 404);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(put_weight("7").status, 409);
  EXPECT_EQ(body_of(host.call("GET", "/v1/candidates"))["refused"].size(), kRefusedCandidatesKept);
  l7->vote = {};
  EXPECT_EQ(put_weight("7").status, 200) << "nothing of it stands in the way";
  EXPECT_EQ(in_force(), 2U);
}

TEST_F(CandidatesTest, ADryRunAsksThePlanesAndLetsThemGo) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  const std::string query = "?dry_run=true";
  for (const bool element : {true, false}) {
    SCOPED_TRACE(element);
    l7->vote = Vote::no("listener http: cannot bind 127.0.0.1:80: Address already in use");
    const HttpResponse refused = element ? put_weight("50", query) : host.put_config(edge_yaml("50"), "*", query);
    EXPECT_EQ(refused.status, 409) << refused.body;
    EXPECT_THAT(refused.body, HasSubstr("Address already in use"));

    l7->vote = {};
    const HttpResponse accepted = element ? put_weight("50", query) : host.put_config(edge_yaml("50"), "*", query);
    EXPECT_EQ(accepted.status, 200) << accepted.body;
    EXPECT_EQ(body_of(accepted)["outcome"], "dry_run");
    EXPECT_EQ(vote_of(body_of(accepted), "l7")["vote"], "yes");
    ASSERT_TRUE(pump(loop, [&] { return l7->released.size() == l7->asked.size() - 1; })) << "all but version 1";
  }
  EXPECT_EQ(in_force(), 1U);
  EXPECT_THAT(body_of(host.call("GET", "/v1/candidates"))["refused"], ::testing::IsEmpty());
}

TEST_F(CandidatesTest, AKeyThatNeedsARestartIsNamed) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  l7->vote.needs_restart = {"l7.workers"};
  const HttpResponse refused = put_weight("7");
  EXPECT_EQ(refused.status, 409);
  EXPECT_EQ(body_of(refused)["code"], "needs_restart");
  EXPECT_THAT(body_of(refused)["detail"], HasSubstr("l7.workers"));
  EXPECT_EQ(in_force(), 1U);
  EXPECT_EQ(put_weight("7", "?allow_restart=true").status, 200);
  EXPECT_EQ(in_force(), 2U);
}

TEST_F(CandidatesTest, AllPlanesMayBeRequired) {
  start();
  const HttpResponse refused = host.put_config(with_dns(), "*", "?require_all=true");
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(body_of(refused)["detail"], HasSubstr("box/dns: "));
  EXPECT_EQ(in_force(), 0U);
}

TEST_F(CandidatesTest, APlaneThatDoesNotPrepareInTimeRefuses) {
  start(100);
  l7->keeps = true;
  const HttpResponse refused = host.put_config(edge_yaml());
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(body_of(refused)["detail"], HasSubstr("box/l7: not prepared within 100 ms"));
  EXPECT_EQ(in_force(), 0U);
  const size_t before = l7->released.size();
  l7->answer_kept();
  EXPECT_TRUE(pump(loop, [&] { return l7->released.size() > before || before > 0; })) << "it holds it after all";
}

TEST_F(CandidatesTest, OneAtATimeWhileControlAnswersOthers) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  l7->keeps = true;
  const auto first = begin("PUT", "/v1/config", edge_yaml("11"));
  ASSERT_TRUE(pump(loop, [&] { return l7->kept.size() == 1; }));
  const auto second = begin("PUT", "/v1/config", edge_yaml("12"));
  const auto third = begin("PUT", "/v1/config/pools/origins",
                           "backends: [{name: origin1, addresses: [127.0.0.1], port: 8080, weight: 13}]");
  EXPECT_EQ(body_of(host.call("GET", "/v1/candidates"))["under_way"]["candidate"], l7->asked.back().id);
  EXPECT_EQ(host.call("GET", "/v1/config").status, 200) << "nobody else waits";
  EXPECT_EQ(l7->kept.size(), 1U);
  l7->keeps = false;
  l7->answer_kept();
  ASSERT_TRUE(pump(loop, [&] { return first->has_value() && second->has_value() && third->has_value(); }));
  EXPECT_EQ((*first)->status, 200);
  EXPECT_EQ((*second)->status, 200);
  EXPECT_EQ((*third)->status, 200);
  EXPECT_EQ(in_force(), 4U);
  for (const CandidateVersion& candidate : l7->asked) EXPECT_LT(candidate.base, 4U);
}

TEST_F(CandidatesTest, ACandidateThatCannotBeWrittenIsReleased) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  l7->keeps = true;
  const auto answer = begin("PUT", "/v1/config", edge_yaml("11"));
  ASSERT_TRUE(pump(loop, [&] { return l7->kept.size() == 1; }));
  {
    const FullDisk full;
    l7->answer_kept();
    ASSERT_TRUE(pump(loop, [&] { return answer->has_value(); }));
  }
  EXPECT_EQ((*answer)->status, 507) << (*answer)->body;
  EXPECT_EQ(in_force(), 1U);
  EXPECT_TRUE(pump(loop, [&] { return l7->released == std::vector{std::to_string(l7->asked.back().id)}; }));
}

TEST_F(CandidatesTest, AControlThatEndsInTheMiddleLeavesTheStateAsItWas) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  l7->keeps = true;
  const auto answer = begin("PUT", "/v1/config", edge_yaml("11"));
  ASSERT_TRUE(pump(loop, [&] { return l7->kept.size() == 1; }));
  host.stop();
  l7->answer_kept();
  host.start();
  EXPECT_EQ(in_force(), 1U);
  l7->keeps = false;
  EXPECT_EQ(host.put_config(edge_yaml("11")).status, 200);
}

// A follower's control answers for the planes of its host.
TEST_F(CandidatesTest, AnotherHostsControlVotesForItsPlanes) {
  start();
  Host other(loop, "far");
  VotingPlane far_l7(loop, other.options.run_dir, "l7");
  const auto document = follow(other);
  const HttpResponse first = host.put_config(document("1"));
  ASSERT_EQ(first.status, 200) << first.body;
  ASSERT_EQ(far_l7.asked.size(), 1U) << first.body;
  EXPECT_TRUE(pump(loop, [&] { return other.control->host_state().head().version == 1; }));
  ASSERT_EQ(host.put_config(document("2")).status, 200);
  EXPECT_EQ(far_l7.asked.back().base, 1U);

  far_l7.vote = Vote::no("no such device");
  const HttpResponse refused = host.put_config(document("3"));
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(body_of(refused)["detail"], HasSubstr("far: l7: no such device"));
  EXPECT_EQ(in_force(), 2U);
  const std::string id = std::to_string(l7->asked.back().id);
  EXPECT_TRUE(pump(loop, [&] { return !l7->released.empty() && l7->released.back() == id; })) << "here too";

  far_l7.vote = {};
  far_l7.vote.needs_restart = {"l7.workers"};
  EXPECT_EQ(body_of(host.put_config(document("3")))["code"], "needs_restart");
  far_l7.vote = {};
  other.stop();
  const HttpResponse without = host.put_config(document("3"));
  EXPECT_EQ(without.status, 200) << without.body;
  EXPECT_EQ(host.put_config(document("4"), "*", "?require_all=true").status, 409);
}

// A candidate of many objects is read outside of the loop.
TEST_F(CandidatesTest, AnotherHostVotesOnALargeCandidateToo) {
  start();
  Host other(loop, "far");
  VotingPlane far_l7(loop, other.options.run_dir, "l7");
  const auto document = follow(other);
  std::string routes;
  for (int i = 0; i < 600; ++i) routes += fmt::format("  - {{name: r{0}, path: /r/{0}, status: 404}}\n", i);
  const HttpResponse first = host.put_config(document("1") + routes);
  ASSERT_EQ(first.status, 200) << first.body;
  ASSERT_EQ(far_l7.asked.size(), 1U);
  EXPECT_GT(far_l7.asked.back().changes.size(), 600U);
  EXPECT_TRUE(pump(loop, [&] { return other.control->host_state().head().version == 1; }));
  far_l7.vote = Vote::no("no such device");
  std::string others = routes;
  for (size_t at = 0; (at = others.find("status: 404", at)) != std::string::npos;)
    others.replace(at, 11, "status: 410");
  const HttpResponse refused = host.put_config(document("1") + others);
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(body_of(refused)["detail"], HasSubstr("far: l7: no such device"));
  const std::string wrong = "[" + std::string(100'000, ' ') + "]";
  EXPECT_EQ(
      other
          .call_as(kReplicaToken, "POST", "/v1/node/candidate?planes=l7", wrong, {{"Content-Type", "application/json"}})
          .status,
      400);
}

TEST_F(CandidatesTest, AVersionThatIsNotConfirmedInTimeIsTakenBack) {
  start();
  EXPECT_EQ(host.put_config(edge_yaml(), "*", "?confirm=1000").status, 409) << "there is nothing before it";
  ASSERT_EQ(host.put_config(edge_yaml("1")).status, 200);
  const std::string before = host.control->host_state().manifest().digest;
  ASSERT_EQ(put_weight("7", "?confirm=1000").status, 200);
  EXPECT_EQ(body_of(host.call("GET", "/v1/confirm"))["provisional"]["back_to"], 1);
  EXPECT_EQ(body_of(put_weight("8"))["code"], "provisional") << "no other change meanwhile";
  l7->vote = Vote::no("nobody can refuse to go back");
  EXPECT_TRUE(pump(loop, [&] { return in_force() == 3; }));
  EXPECT_EQ(host.control->host_state().manifest().digest, before);
  EXPECT_EQ(host.control->host_state().manifest().rollback_of, 1U);
  EXPECT_TRUE(body_of(host.call("GET", "/v1/confirm"))["provisional"].is_null());
  EXPECT_EQ(host.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 409) << "too late";
}

TEST_F(CandidatesTest, AConfirmedVersionStays) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml("1")).status, 200);
  ASSERT_EQ(host.put_config(edge_yaml("2"), "*", "?confirm=60000").status, 200);
  EXPECT_EQ(host.call_json("POST", "/v1/confirm", {{"version", 1}}).status, 409);
  EXPECT_EQ(host.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 200);
  EXPECT_EQ(host.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 409);
  EXPECT_FALSE(std::filesystem::exists(host.directory / "state/provisional"));
  ASSERT_EQ(host.put_config(edge_yaml("3"), "*", "?confirm=60000").status, 200);
  EXPECT_EQ(host.call_json("POST", "/v1/rollback", {{"to", 2}}).status, 200) << "a rollback ends it";
  EXPECT_TRUE(body_of(host.call("GET", "/v1/confirm"))["provisional"].is_null());
}

TEST_F(CandidatesTest, AProvisionalVersionOutlivesItsControl) {
  start();
  ASSERT_EQ(host.put_config(edge_yaml("1")).status, 200);
  ASSERT_EQ(host.put_config(edge_yaml("2"), "*", "?confirm=1000").status, 200);
  host.stop();
  host.start();
  EXPECT_EQ(body_of(host.call("GET", "/v1/confirm"))["provisional"]["version"], 2);
  EXPECT_TRUE(pump(loop, [&] { return in_force() == 3; }));
}

class LongCandidatesTest : public CandidatesTest {};

TEST_F(LongCandidatesTest, AHostThatDoesNotHearItsLeaderGoesBackAloneAndFollowsItAgain) {
  start();
  Host other(loop, "far");
  const auto document = follow(other);
  ASSERT_EQ(host.put_config(document("1")).status, 200);
  ASSERT_EQ(host.put_config(document("2"), "*", "?confirm=1000").status, 200);
  ASSERT_TRUE(pump(loop, [&] { return other.control->host_state().head().version == 2; }));
  host.stop();
  const std::string& state = other.options.state_dir;
  EXPECT_EQ(version_to_serve(state, 2), 2U);
  ASSERT_TRUE(pump(loop, [&] { return version_to_serve(state, 2) == 1; }));
  EXPECT_EQ(body_of(other.call("GET", "/v1/node/status"))["provisional"]["went_back"], true);
  host.start();  // its own time begins again, and then it reverts
  ASSERT_TRUE(pump(loop, [&] { return other.control->host_state().head().version == 3; }));
  EXPECT_EQ(version_to_serve(state, 3), 3U);
  EXPECT_FALSE(read_provisional(state));
}

TEST_F(CandidatesTest, AConfirmationReachesTheOtherHosts) {
  start();
  Host other(loop, "far");
  const auto document = follow(other);
  ASSERT_EQ(host.put_config(document("1")).status, 200);
  ASSERT_EQ(host.put_config(document("2"), "*", "?confirm=60000").status, 200);
  ASSERT_TRUE(pump(loop, [&] { return read_provisional(other.options.state_dir).has_value(); }));
  ASSERT_TRUE(pump(loop, [&] { return other.control->host_state().head().version == 2; }));
  EXPECT_EQ(host.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 200);
  EXPECT_TRUE(pump(loop, [&] { return !read_provisional(other.options.state_dir); }));
}

TEST_F(CandidatesTest, AControlThatLeadsVotesOnNobodysCandidates) {
  start();
  const json greeting = body_of(host.call("GET", "/v1/node/candidate"));
  EXPECT_TRUE(greeting.contains("held"));
  const HttpResponse vote = host.call_json("POST", "/v1/node/candidate?planes=l7", json{{"candidate", 1}});
  EXPECT_EQ(body_of(vote)["vote"], "behind");
}

}  // namespace tidegate::testing::candidates_test
