// SPDX-License-Identifier: Apache-2.0
// A plane end to end: its own process, queried over its admin socket, controlled by signals.
#include "conf/plane.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "conf/document.h"
#include "core/http_client.h"
#include "core/log.h"
#include "tests/unit/conf/forked.h"
#include "tests/unit/promlint.h"

namespace tidegate::plane_test {

using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

constexpr char kDocument[] =
    "nodes: [{name: here}, {name: there}]\n"
    "pools:\n"
    "  - name: web\n"
    "    backends: [{name: a, addresses: [10.0.0.1], port: 80}]\n";

constexpr char kPoolToRefuse[] = "  - {name: refuse, backends: [{name: b, addresses: [10.0.0.2], port: 80}]}\n";

std::vector<ConfigObject> objects_of(const std::string& yaml) {
  std::vector<Fault> faults;
  return split_objects(*Document::parse("edge.yaml", yaml, faults), files_from({}));
}

// A plane that only counts. It refuses a configuration that has a pool named "refuse".
PlaneHooks counting_hooks() {
  const auto applied = std::make_shared<int>(0);
  PlaneHooks hooks;
  hooks.apply = [applied](std::shared_ptr<const Snapshot> snapshot, const Node&) -> Result<void> {
    for (const Pool& pool : snapshot->model->pools) {
      if (pool.name == "refuse") return fail("cannot serve pool refuse");
    }
    ++*applied;
    return {};
  };
  hooks.digest = [] { return std::string("cafe"); };
  hooks.add_status = [applied](json& status) { status["applied"] = *applied; };
  hooks.explain_parameters = {QueryParameter::address("client", "")};
  hooks.explain = [](const HttpRequest& request) -> Result<json> {
    const std::optional<std::string> client = request.parameter("client");
    if (!client) return fail("the parameter client is missing");
    return json{{"plane", "test"}, {"client", *client}};
  };
  hooks.admin = [](const HttpExchangePtr& exchange) {
    if (exchange->request().path != "/own") return false;
    exchange->respond(HttpResponse::text(200, "own page"));
    return true;
  };
  return hooks;
}

// The process. Its stderr goes to a pipe, from which the test learns what has happened.
class PlaneProcess {
 public:
  PlaneProcess(const TempDir& directory, PlaneOptions options, PlaneHooks hooks = counting_hooks())
      : run_dir_(directory / "run/here") {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    options.run_dir = run_dir_;
    process_.emplace([&](Talk&) {
      ::dup2(ends[1], STDERR_FILENO);
      Plane plane("test", options);
      return plane.run(std::move(hooks));
    });
    ::close(ends[1]);
    log_.reset(ends[0]);
  }

  // Reads the log up to a line that contains `text`. Returns false if the process ended or 30 s passed without it.
  bool logged(const std::string& text) {
    while (seen_.find(text, looked_) == std::string::npos) {
      if (!read_more()) return false;
    }
    looked_ = seen_.find(text, looked_) + text.size();
    return true;
  }
  std::string whole_log() {
    while (read_more()) {
    }
    return seen_;
  }
  Result<HttpResponse> get(const std::string& target) const {
    HttpTarget socket;
    socket.unix_path = run_dir_ + "/test.sock";
    HttpClientRequest request;
    request.target = target;
    return http_fetch(socket, request);
  }
  json status() const {
    const Result<HttpResponse> response = get("/status");
    EXPECT_TRUE(response) << (response ? "" : response.error().message);
    return response ? json::parse(response->body) : json();
  }
  Forked& process() { return *process_; }

 private:
  bool read_more() {
    pollfd readable{log_.get(), POLLIN, 0};
    char buffer[4096];
    if (::poll(&readable, 1, 60'000) != 1) return false;
    const ssize_t got = ::read(log_.get(), buffer, sizeof buffer);
    if (got > 0) seen_.append(buffer, static_cast<size_t>(got));
    return got > 0;
  }

  std::string run_dir_;
  std::optional<Forked> process_;
  UniqueFd log_;
  std::string seen_;
  size_t looked_ = 0;
};

PlaneOptions of_file(const TempDir& directory, const std::string& document = kDocument) {
  std::ofstream(directory / "edge.yaml") << document;
  PlaneOptions options;
  options.config = directory / "edge.yaml";
  options.node = "here";
  return options;
}

json alive_of(PlaneProcess& plane) { return json::parse(plane.get("/alive")->body); }

TEST(Plane, ServesFromAFileAndTellsAboutItself) {
  const TempDir directory;
  PlaneProcess plane(directory, of_file(directory));
  ASSERT_TRUE(plane.logged("ready: version 0"));
  EXPECT_EQ(plane.get("/healthz")->status, 200);

  const json status = plane.status();
  EXPECT_EQ(status["plane"], "test");
  EXPECT_EQ(status["node"], "here");
  EXPECT_EQ(status["pid"], plane.process().pid());
  EXPECT_EQ(status["ready"], true);
  EXPECT_EQ(status["version"], 0);
  EXPECT_EQ(status["version_digest"].get<std::string>().size(), 64U);
  EXPECT_EQ(status["words"], 0);
  EXPECT_EQ(status["purge"], 0);
  EXPECT_GT(status["applied_at_ns"].get<uint64_t>(), 0U);
  EXPECT_EQ(status["digest"], "cafe");
  EXPECT_TRUE(status["refused"].is_null());
  EXPECT_EQ(status["applied"], 1);

  const std::string metrics = plane.get("/metrics")->body;
  EXPECT_THAT(metrics, HasSubstr("\ntidegate_test_ready 1\n"));
  EXPECT_THAT(metrics, HasSubstr("\ntidegate_test_build_info{version=\"" TIDEGATE_VERSION "\"} 1\n"));
  EXPECT_THAT(metrics, ContainsRegex("\nprocess_cpu_seconds_total [0-9.e-]+\n"));
  EXPECT_THAT(metrics, ContainsRegex("\nprocess_resident_memory_bytes [1-9]"));
  EXPECT_THAT(testing::lint_metrics(metrics), ::testing::IsEmpty());
  EXPECT_THAT(metrics, ContainsRegex("\nprocess_open_fds [1-9]"));

  plane.process().kill(SIGTERM);
  EXPECT_EQ(plane.process().wait(), 0);
}

TEST(Plane, AnswersExplainAndItsOwnPagesAndRefusesTheRest) {
  const TempDir directory;
  PlaneProcess plane(directory, of_file(directory));
  ASSERT_TRUE(plane.logged("ready: version 0"));
  const Result<HttpResponse> explained = plane.get("/explain?client=192.0.2.1");
  EXPECT_EQ(explained->status, 200);
  EXPECT_EQ(json::parse(explained->body)["client"], "192.0.2.1");
  const Result<HttpResponse> refused = plane.get("/explain");
  EXPECT_EQ(refused->status, 400);
  EXPECT_EQ(json::parse(refused->body)["detail"], "the parameter client is missing");
  EXPECT_EQ(plane.get("/own")->body, "own page");
  for (const char* target : {"/explain?client=192.0.2.1&client=192.0.2.2", "/explain?cleint=192.0.2.1",
                             "/explain?client=nobody", "/status?x=1", "/metrics?x=1", "/healthz?x=1"}) {
    EXPECT_EQ(plane.get(target)->status, 400) << target;
  }
  EXPECT_THAT(plane.get("/explain?cleint=192.0.2.1")->body, HasSubstr("did you mean 'client'?"));
  EXPECT_EQ(plane.get("/nothing")->status, 404);
}

TEST(Plane, ReloadsItsFileOnSighupAndKeepsTheOldOneWhenItIsFaulty) {
  const TempDir directory;
  const PlaneOptions options = of_file(directory);
  PlaneProcess plane(directory, options);
  ASSERT_TRUE(plane.logged("ready: version 0"));
  const std::string digest = plane.status()["version_digest"];
  std::ofstream(options.config) << "pools: [{name: web, wieght: 3}]\n";
  plane.process().kill(SIGHUP);
  ASSERT_TRUE(plane.logged("reload refused"));
  EXPECT_EQ(plane.status()["version_digest"], digest);
  EXPECT_THAT(plane.status()["refused"].get<std::string>(), HasSubstr("wieght"));
  EXPECT_EQ(plane.get("/healthz")->status, 200);
  std::ofstream(options.config) << kDocument
                                << "  - {name: more, backends: [{name: b, addresses: [10.0.0.2], port: 80}]}\n";
  plane.process().kill(SIGHUP);
  ASSERT_TRUE(plane.logged("applied: version 0"));
  EXPECT_NE(plane.status()["version_digest"], digest);
  EXPECT_TRUE(plane.status()["refused"].is_null());
  EXPECT_EQ(plane.status()["applied"], 2);
}

TEST(Plane, EndsWithEveryFaultOfItsFileAndStatusOne) {
  const TempDir directory;
  PlaneProcess plane(directory, of_file(directory, "pools:\n  - {name: web, wieght: 3}\nservicess: []\n"));
  EXPECT_EQ(plane.process().wait(), 1);
  const std::string log = plane.whole_log();
  EXPECT_THAT(log, HasSubstr("edge.yaml:2:"));
  EXPECT_THAT(log, HasSubstr("edge.yaml:3:"));
  EXPECT_THAT(log, HasSubstr("^~"));
}

TEST(Plane, NamesTheNodesThereAreWhenItsOwnIsNotAmongThem) {
  const TempDir directory;
  PlaneOptions options = of_file(directory);
  options.node = "nowhere";
  PlaneProcess plane(directory, options);
  EXPECT_EQ(plane.process().wait(), 1);
  EXPECT_THAT(plane.whole_log(), HasSubstr("has no node 'nowhere' (as --node says); it has: here, there"));
}

TEST(Plane, TakesTheOnlyNodeWhenNoneIsNamed) {
  const TempDir directory;
  PlaneOptions options = of_file(directory, "nodes: [{name: lonely}]\n");
  options.node.clear();
  PlaneProcess plane(directory, options);
  ASSERT_TRUE(plane.logged("ready: version 0"));
  EXPECT_EQ(plane.status()["node"], "lonely");
}

TEST(Plane, FromAFileWithProbesSaysLoudlyThatNobodyProbes) {
  const TempDir directory;
  const std::string probed =
      "nodes: [{name: here}]\n"
      "probes: [{name: alive, type: tcp}]\n"
      "pools:\n"
      "  - {name: web, probe: alive, backends: [{name: a, addresses: [10.0.0.1], port: 80}]}\n"
      "  - {name: plain, backends: [{name: b, addresses: [10.0.0.2], port: 80}]}\n";
  PlaneProcess plane(directory, of_file(directory, probed));
  ASSERT_TRUE(plane.logged("NOBODY PROBES: 1 backends have a probe"));
  ASSERT_TRUE(plane.logged("ready: version 0"));
  EXPECT_EQ(plane.status()["unprobed_backends"], 1);
  EXPECT_THAT(plane.get("/metrics")->body, HasSubstr("\ntidegate_test_unprobed_backends 1\n"));
}

TEST(Plane, WaitsForAVersionThenFollowsItAndReportsWhatItRefuses) {
  const TempDir directory;
  PlaneOptions options;
  options.state_dir = directory / "state";
  options.node = "here";
  PlaneProcess plane(directory, options);
  ASSERT_TRUE(plane.logged("waiting for a version"));
  EXPECT_EQ(plane.get("/healthz")->status, 503);
  EXPECT_EQ(plane.get("/explain?client=192.0.2.1")->status, 503);
  EXPECT_EQ(plane.status()["ready"], false);
  EXPECT_EQ(alive_of(plane)["state"], "down");

  const Result<std::unique_ptr<StateStore>> store = StateStore::open(options.state_dir, StateStore::Mode::read_write);
  ASSERT_TRUE(store);
  ASSERT_TRUE((*store)->commit_version(objects_of(kDocument), 0, "t", ""));
  ASSERT_TRUE(plane.logged("ready: version 1"));
  EXPECT_EQ(plane.get("/healthz")->status, 200);
  EXPECT_EQ(alive_of(plane), (json{{"plane", "test"}, {"state", "up"}, {"version", 1}, {"words", 0}}));
  EXPECT_EQ(plane.status()["version"], 1);
  EXPECT_EQ(plane.status()["version_digest"], (*store)->manifest(1)->digest);

  ASSERT_TRUE((*store)->commit_version(objects_of(std::string(kDocument) + kPoolToRefuse), 1, "t", ""));
  ASSERT_TRUE(plane.logged("version 2: cannot serve pool refuse; version 1 stays in force"));
  EXPECT_EQ(plane.status()["refused"], "version 2: cannot serve pool refuse");
  EXPECT_EQ(plane.status()["version"], 1);
  EXPECT_EQ(plane.get("/healthz")->status, 200);
  EXPECT_EQ(alive_of(plane)["state"], "draining") << "it serves an older version: it gets no new work";
  EXPECT_EQ(alive_of(plane)["why"], "serves version 1, because it refuses version 2: cannot serve pool refuse");

  ASSERT_TRUE((*store)->set_override("backend/web/a", Override{}, "t"));
  ASSERT_TRUE(plane.logged("applied: version 1"));
  EXPECT_EQ(plane.status()["words"], 1);
}

TEST(Plane, DrainsOnSigtermAndStopsAtOnceOnTheSecond) {
  const TempDir directory;
  PlaneHooks hooks = counting_hooks();
  hooks.drain = [](std::function<void()>) { log_info("drain was asked for"); };  // never completes
  PlaneProcess plane(directory, of_file(directory), std::move(hooks));
  ASSERT_TRUE(plane.logged("ready: version 0"));
  plane.process().kill(SIGTERM);
  ASSERT_TRUE(plane.logged("drain was asked for"));
  EXPECT_EQ(plane.get("/healthz")->status, 503);
  EXPECT_EQ(alive_of(plane)["why"], "it is ending");
  plane.process().kill(SIGTERM);
  EXPECT_EQ(plane.process().wait(), 0);
}

TEST(Plane, RefusesASecretThatIsTooShort) {
  const TempDir directory;
  PlaneOptions options = of_file(directory);
  options.secret_file = directory / "secret";
  std::ofstream(options.secret_file) << "short\n";
  PlaneProcess plane(directory, options);
  EXPECT_EQ(plane.process().wait(), 1);
  EXPECT_THAT(plane.whole_log(), HasSubstr("has 5 bytes; it needs 16 at least"));
}

TEST(Plane, ReadsItsSecretWithoutTheNewline) {
  const TempDir directory;
  PlaneOptions options = of_file(directory);
  options.secret_file = directory / "secret";
  std::ofstream(options.secret_file) << "0123456789abcdef0123456789abcdef\n";
  Forked process([&](Talk&) { return Plane("test", options).secret() == "0123456789abcdef0123456789abcdef" ? 0 : 1; });
  EXPECT_EQ(process.wait(), 0);
}

TEST(Plane, ShowsMetricsAndHealthOverTcpAndNothingElse) {
  const TempDir directory;
  PlaneOptions options = of_file(directory);
  options.metrics_listen = Endpoint::parse("127.0.0.1:0");
  PlaneProcess plane(directory, options);
  ASSERT_TRUE(plane.logged("metrics at 127.0.0.1:"));
  ASSERT_TRUE(plane.logged("ready: version 0"));
  const Result<HttpResponse> status = plane.get("/status");
  HttpTarget tcp;
  tcp.endpoint = *Endpoint::parse(json::parse(status->body)["metrics"].get<std::string>());
  const auto get = [&](const std::string& target) {
    HttpClientRequest request;
    request.target = target;
    request.host = "localhost";
    return http_fetch(tcp, request);
  };
  EXPECT_THAT(get("/metrics")->body, HasSubstr("tidegate_test_ready 1"));
  EXPECT_EQ(get("/healthz")->status, 200);
  EXPECT_EQ(get("/status")->status, 404);
  EXPECT_EQ(get("/explain?client=x")->status, 404);
}

TEST(Plane, MayOpenAsManyFilesAsTheSystemLetsIt) {
  const TempDir directory;
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit as_from_a_shell{256, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &as_from_a_shell), 0);
  PlaneProcess plane(directory, of_file(directory));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  ASSERT_TRUE(plane.logged("ready: version 0"));
  const std::string most = fmt::format("\nprocess_max_fds {:.9g}\n", static_cast<double>(limit.rlim_max));
  EXPECT_THAT(plane.get("/metrics")->body, HasSubstr(most));
}

TEST(PlaneOptions, AreParsed) {
  std::vector<std::string> live_state = {"tidegate-test", "--state", "/s",        "--run",      "/r",
                                         "--node",        "n",       "--metrics", "[::1]:9100", "--verbose"};
  std::vector<char*> argv;
  for (std::string& record : live_state) argv.push_back(record.data());
  const PlaneOptions options = parse_plane_options(static_cast<int>(argv.size()), argv.data(), "test", "A test.");
  EXPECT_EQ(options.state_dir, "/s");
  EXPECT_EQ(options.run_dir, "/r");
  EXPECT_EQ(options.node, "n");
  EXPECT_EQ(options.metrics_listen->port, 9100);
  EXPECT_TRUE(options.verbose);
  EXPECT_EQ(options.config, "");
}

TEST(PlaneOptions, EndWithStatusTwoOnMisuseAndZeroOnHelp) {
  const auto parse = [](std::vector<std::string> live_state) {
    std::vector<char*> argv;
    for (std::string& record : live_state) argv.push_back(record.data());
    parse_plane_options(static_cast<int>(argv.size()), argv.data(), "test", "A test.");
  };
  EXPECT_EXIT(parse({"tidegate-test", "--stat", "/s"}), ::testing::ExitedWithCode(2), "--stat");
  EXPECT_EXIT(parse({"tidegate-test", "--metrics", "9100"}), ::testing::ExitedWithCode(2), "not ADDRESS:PORT");
  EXPECT_EXIT(parse({"tidegate-test", "--help"}), ::testing::ExitedWithCode(0), "");
}

}  // namespace tidegate::plane_test
