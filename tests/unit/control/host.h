// SPDX-License-Identifier: Apache-2.0
// A host in a test: a temporary directory, a real Control on a loop that the test runs, and planes that answer as the
// test says.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "conf/model/route.h"
#include "control/api/json_bounds.h"
#include "control/api/openapi.h"
#include "control/control.h"
#include "core/clock.h"
#include "core/http_client.h"
#include "core/http_server.h"

namespace tidegate::testing {

using Headers = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kAdminToken = "admin-token-0123456789";
constexpr const char* kViewerToken = "viewer-token-0123456789";
constexpr const char* kOperatorToken = "operator-token-0123456789";
constexpr const char* kPublisherToken = "publisher-token-0123456789";
constexpr const char* kReplicaToken = "replica-token-0123456789";

constexpr uint64_t kPatienceMs = 60'000;  // long enough for a busy machine and for sanitizers

// Runs the loop until `done` is true or the time is over. Returns whether `done` was true.
inline bool pump(EventLoop& loop, const std::function<bool()>& done, uint64_t timeout_ms = kPatienceMs) {
  const uint64_t deadline_ns = monotonic_ns() + timeout_ms * kNsPerMs;
  while (!done()) {
    if (monotonic_ns() > deadline_ns) return false;
    loop.run_once(5 * kNsPerMs);
  }
  return true;
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tidegate-control-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, const std::string& content) const {
    std::ofstream(*this / name) << content;
    return *this / name;
  }

 private:
  std::string path_;
};

inline std::string header(const HttpResponse& response, std::string_view name) {
  for (const auto& [field, value] : response.headers) {
    if (http1::equals_ignore_case(field, name)) return value;
  }
  return {};
}

inline nlohmann::json body_of(const HttpResponse& response) {
  Result<nlohmann::json> parsed = parse_json(response.body);
  EXPECT_TRUE(parsed) << response.body;
  return parsed ? *parsed : nlohmann::json();
}

// The admin socket of a plane. It answers with `status` and `explained`.
class FakePlane {
 public:
  FakePlane(EventLoop& loop, const std::string& run_dir, const std::string& plane)
      : status({{"plane", plane}, {"ready", true}, {"version", 0}, {"words", 0}, {"purge", 0}}),
        server_(loop, [this](const HttpExchangePtr& exchange) { answer(exchange); }) {
    EXPECT_TRUE(server_.listen_unix(run_dir + "/" + plane + ".sock"));
  }
  nlohmann::json status;
  std::function<void()> before_status;  // called before each answer to /status
  nlohmann::json explained = nlohmann::json::object();
  std::string asked;     // target of the last /explain
  nlohmann::json alive;  // the answer to /alive; null: the plane is of an earlier release
  int times_asked = 0;   // questions to /alive
  std::string heard;     // what the last of them said about hearing a leader

 private:
  void answer(const HttpExchangePtr& exchange) {
    if (exchange->request().path == "/status") {
      if (before_status) before_status();
      return exchange->respond(HttpResponse::json(200, status.dump()));
    }
    if (exchange->request().path == "/metrics") return exchange->respond(HttpResponse::text(200, "plane_metric 1\n"));
    if (exchange->request().path == "/alive" && !alive.is_null()) {
      ++times_asked;
      heard = exchange->request().header("tidegate-hears-leader");
      return exchange->respond(HttpResponse::json(200, alive.dump()));
    }
    if (exchange->request().path == "/candidate" || exchange->request().path == "/alive") {
      return exchange->respond(HttpResponse::problem(404, "Not Found", "of an earlier release"));
    }
    asked = exchange->request().target;
    exchange->respond(HttpResponse::json(200, explained.dump()));
  }
  HttpServer server_;
};

// While it exists, no file of this process can grow beyond its second page. For the state this is a full disk.
class FullDisk {
 public:
  FullDisk() : before_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &limit_);
    const rlimit two_pages = {8192, limit_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &two_pages);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &limit_);
    ::signal(SIGXFSZ, before_);
  }

 private:
  void (*before_)(int);
  rlimit limit_{};
};

class Host {
 public:
  explicit Host(EventLoop& loop, std::string node = "box") : loop_(loop) {
    options.node = std::move(node);
    options.node_told = true;
    options.state_dir = directory / "state";
    options.run_dir = directory / "run";
    options.listen = Endpoint::parse("127.0.0.1:0");
    options.tokens_file = directory.write(
        "tokens", std::string("admin ") + kAdminToken + " boss\nviewer " + kViewerToken + "\noperator " +
                      kOperatorToken + " ops\npublisher " + kPublisherToken + "\nreplica " + kReplicaToken + "\n");
    std::filesystem::create_directories(options.run_dir);
  }

  void start() {
    Result<std::unique_ptr<Control>> started = Control::start(loop_, options);
    ASSERT_TRUE(started) << started.error().message;
    control = std::move(*started);
    documented();  // called now, because it takes longer than some waits that are measured later
  }
  void stop() { control.reset(); }

  // Calls over the unix socket as our own user, who is an admin.
  HttpResponse call(const std::string& method, const std::string& target, const std::string& body = {},
                    Headers headers = {}) {
    HttpTarget socket;
    socket.unix_path = options.run_dir + "/control.sock";
    return send(socket, method, target, body, std::move(headers));
  }
  // Calls over TCP with a token (none if empty).
  HttpResponse call_as(const std::string& token, const std::string& method, const std::string& target,
                       const std::string& body = {}, Headers headers = {}) {
    HttpTarget tcp;
    tcp.endpoint = *control->tcp_endpoint();
    if (!token.empty()) headers.emplace_back("Authorization", "Bearer " + token);
    return send(tcp, method, target, body, std::move(headers));
  }
  HttpResponse put_config(const std::string& yaml, const std::string& if_match = "*", const std::string& query = {}) {
    return call("PUT", "/v1/config" + query, yaml, {{"Content-Type", "application/yaml"}, {"If-Match", if_match}});
  }
  HttpResponse call_json(const std::string& method, const std::string& target, const nlohmann::json& body,
                         Headers headers = {}) {
    headers.emplace_back("Content-Type", "application/json");
    return call(method, target, body.dump(), std::move(headers));
  }

  TemporaryDirectory directory;
  ControlOptions options;
  std::unique_ptr<Control> control;

 private:
  HttpResponse send(const HttpTarget& target, const std::string& method, const std::string& path,
                    const std::string& body, Headers headers) {
    HttpClientRequest request;
    request.method = method;
    request.target = path;
    request.host = "control";
    request.headers = std::move(headers);
    request.body = body;
    request.timeout_ms = kPatienceMs;
    std::optional<Result<HttpResponse>> answer;
    const auto call =
        http_call(loop_, target, request, [&](Result<HttpResponse> response) { answer.emplace(std::move(response)); });
    EXPECT_TRUE(pump(loop_, [&] { return answer.has_value(); })) << method << " " << path << " was not answered";
    if (!answer || !*answer) {
      ADD_FAILURE() << method << " " << path << ": " << (answer ? answer->error().message : "no answer");
      return {};
    }
    expect_documented(method, path, (*answer)->status);
    return **answer;
  }
  // The document is the same for every control, because the routes are.
  const nlohmann::json& documented() const {
    static const nlohmann::json document = openapi_document(control->routes());
    return document;
  }
  // The status of every answer that a test gets must be in the OpenAPI document.
  void expect_documented(const std::string& method, const std::string& target, int status) const {
    const RouteTable::Found found = control->routes().find(method, target.substr(0, target.find('?')));
    if (!found.route) return;  // statuses without a route: 401, 404, 405
    std::string verb = found.route->method;
    for (char& c : verb) c = static_cast<char>(std::tolower(c));
    const nlohmann::json& operation = documented()["paths"].at(found.route->pattern).at(verb);
    EXPECT_TRUE(operation["responses"].contains(std::to_string(status)))
        << method << " " << target << " answers an undocumented " << status;
  }
  EventLoop& loop_;
};

// The files of the version in force.
inline FileReader files_of(const HostState& host_state) {
  FileReader files;
  EXPECT_TRUE(host_state.document(host_state.manifest(), files));
  return files;
}

// A small edge: one site, one node with all planes, one pool, one route.
inline std::string edge_yaml(const std::string& weight = "100", const std::string& more = {}) {
  return R"(sites:
  - {name: eu, location: {latitude: 50.11, longitude: 8.68}}
nodes:
  - name: box
    site: eu
    l7: {workers: 1}
pools:
  - name: origins
    backends:
      - {name: origin1, addresses: [127.0.0.1], port: 8080, weight: )" +
         weight + R"(}
      - {name: origin2, addresses: [127.0.0.1], port: 8081}
listeners:
  - {name: http, bind: ["127.0.0.1:8000"]}
routes:
  - {name: all, path: "/*", pool: origins}
)" + more;
}

}  // namespace tidegate::testing
