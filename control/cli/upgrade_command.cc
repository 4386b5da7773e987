// SPDX-License-Identifier: Apache-2.0
// The command upgrade: a new process of each plane replaces the running process, without a pause.

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "control/api/json_bounds.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "core/clock.h"
#include "core/event_loop.h"
#include "core/percent.h"

namespace tidegate::cli {

namespace {

using nlohmann::json;

constexpr uint64_t kLookMs = 200;
constexpr uint64_t kGraceMs = 15'000;  // in addition to --within: for the last messages of the old process

struct UpgradeArguments {
  std::vector<std::string> daemons;
  std::string run_dir = "/run/tidegate";
  std::string program;
  uint64_t within_s = 60;
  bool wait = false;
};

// What has to be done for the daemon that hands nothing over.
constexpr const char* kAdviceOnControl =
    "hands nothing over. Restart it last (systemctl restart tidegate-control): the planes serve on without it";

HttpTarget target_of(const UpgradeArguments& arguments, const std::string& daemon) {
  HttpTarget target;
  target.unix_path = arguments.run_dir + "/" + daemon + ".sock";
  return target;
}

std::string text_of(const json& line) {
  const auto text = [&line](const char* member) { return line.value(member, std::string()); };
  const std::string step = text("step"), detail = text("detail");
  if (step == "started") return fmt::format("process {} starts from {}", line.value("pid", 0), detail);
  if (step == "hello") return fmt::format("it is release {}", detail);
  if (step == "sockets") return fmt::format("{} sockets are handed over", detail);
  if (step == "warm") return fmt::format("the new process is ready: {}", detail);
  if (step == "let_go") return "the old process has let go";
  if (step == "data") return detail;
  return fmt::format("{} {}", step, detail);
}

// Follows one upgrade on the loop until its last line.
class Progress {
 public:
  Progress(const Cli& cli, std::string daemon) : cli_(cli), daemon_(std::move(daemon)) {}

  void take(std::string_view bytes) {
    partial_ += bytes;
    for (size_t end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n')) {
      take_line(partial_.substr(0, end));
      partial_.erase(0, end + 1);
    }
  }
  const json& outcome() const { return outcome_; }

 private:
  void take_line(const std::string& text) {
    json line = json::parse(text);
    if (line.contains("outcome")) {
      outcome_ = std::move(line);
      return;
    }
    if (cli_.json()) {
      line["daemon"] = daemon_;
      fmt::print("{}\n", line.dump());
    } else {
      fmt::print("{}: {}\n", daemon_, text_of(line));
    }
    std::fflush(stdout);
  }

  const Cli& cli_;
  const std::string daemon_;
  std::string partial_;
  json outcome_;
};

void print_failure(Cli& cli, const std::string& daemon, const std::string& reason) {
  if (cli.json()) fmt::print("{}\n", json{{"daemon", daemon}, {"outcome", "failed"}, {"reason", reason}}.dump());
  fmt::print(stderr, "tidegate: {} is not upgraded, the old process goes on: {}\n", daemon, reason);
  cli.exit_status = kRefused;
}

void print_nobody(Cli& cli, const std::string& daemon, const std::string& why) {
  fmt::print(stderr, "tidegate: {}: {}\n", daemon, why);
  cli.exit_status = kUnreachable;
}

std::string problem_of(const HttpResponse& response) {
  const json problem = json::parse(response.body, nullptr, false);
  return problem.is_object() ? problem.value("detail", response.body) : response.body;
}

// Waits until every earlier process has ended. Each does so within its drain_timeout.
void wait_for_drained(Cli& cli, const UpgradeArguments& arguments, const std::string& daemon) {
  for (uint64_t last = UINT64_MAX;;) {
    HttpClientRequest request;
    request.target = "/status";
    const Result<HttpResponse> response = http_fetch(target_of(arguments, daemon), request);
    if (!response || response->status != 200) return print_nobody(cli, daemon, "it does not answer any more");
    const json draining = json::parse(response->body).at("draining_processes");
    if (draining.empty()) return;
    uint64_t left = 0;
    for (const json& process : draining) left += number_member(process, "connections");
    if (left != last && !cli.json()) fmt::print("{}: {} connections of old processes are left\n", daemon, left);
    std::fflush(stdout);
    last = left;
    ::usleep(kLookMs * 1'000);
  }
}

void upgrade(Cli& cli, const UpgradeArguments& arguments, const std::string& daemon) {
  EventLoop loop;
  Progress progress(cli, daemon);
  Result<HttpResponse> answer = fail("no answer");
  HttpClientRequest request;
  request.method = "POST";
  request.target = fmt::format("/upgrade?within={}", arguments.within_s);
  if (!arguments.program.empty()) {
    std::error_code error;
    request.target += "&program=" + percent_encode(std::filesystem::absolute(arguments.program, error).string());
  }
  request.timeout_ms = arguments.within_s * 1'000 + kGraceMs;
  const auto call = http_stream(
      loop, target_of(arguments, daemon), std::move(request), [&](std::string_view bytes) { progress.take(bytes); },
      [&](Result<HttpResponse> response) {
        answer = std::move(response);
        loop.stop();
      });
  loop.run();
  const json& outcome = progress.outcome();
  if (outcome.is_object() && outcome.value("outcome", std::string()) == "done") {
    if (cli.json()) {
      json line = outcome;
      line["daemon"] = daemon;
      fmt::print("{}\n", line.dump());
    } else {
      fmt::print("{}: upgraded: process {} serves\n", daemon, outcome.value("pid", 0));
    }
    std::fflush(stdout);
    return arguments.wait ? wait_for_drained(cli, arguments, daemon) : void();
  }
  if (outcome.is_object()) return print_failure(cli, daemon, outcome.value("reason", std::string("no reason")));
  if (!answer) return print_nobody(cli, daemon, answer.error().message);
  if (answer->status == 404) return print_failure(cli, daemon, "it is of a release that hands nothing over");
  print_failure(cli, daemon, answer->status == 200 ? "the old process ended in the middle" : problem_of(*answer));
}

// The running planes of this node, in the order in which they are upgraded.
std::vector<std::string> running_daemons(const UpgradeArguments& arguments) {
  std::vector<std::string> running;
  for (const char* daemon : {"dns", "l7", "l4", "control"}) {
    std::error_code error;
    if (std::filesystem::exists(target_of(arguments, daemon).unix_path, error)) running.emplace_back(daemon);
  }
  return running;
}

void run(Cli& cli, const UpgradeArguments& arguments) {
  const bool all = arguments.daemons.empty();
  const std::vector<std::string> daemons = all ? running_daemons(arguments) : arguments.daemons;
  if (daemons.empty()) return print_nobody(cli, "upgrade", "no daemon has a socket in " + arguments.run_dir);
  if (!arguments.program.empty() && daemons.size() != 1) {
    fmt::print(stderr, "tidegate: --program is for one daemon\n");
    cli.exit_status = kMisuse;
    return;
  }
  for (const std::string& daemon : daemons) {
    if (daemon != "control") {
      upgrade(cli, arguments, daemon);
      // An error of one program will probably also occur for the next one.
      if (cli.exit_status != kDone) return;
    } else if (all) {
      fmt::print("{}: {}\n", daemon, kAdviceOnControl);
    } else {
      print_failure(cli, daemon, kAdviceOnControl);
    }
  }
}

}  // namespace

void add_upgrade_command(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<UpgradeArguments>();
  CLI::App* command =
      add_command(app, "upgrade",
                  "Replace running daemons of this host by new processes, without a pause.\n"
                  "A new process takes the listening sockets over. When it is ready, the old one accepts\n"
                  "nothing more and finishes what it has. If it is not ready, the old one goes on.\n"
                  "Without DAEMON: every one that runs, and what is to be done for the others.",
                  "tidegate upgrade l7 --wait");
  command->add_option("DAEMON", arguments->daemons)->check(CLI::IsMember({"l7", "dns", "l4", "control"}));
  command->add_option("--run", arguments->run_dir, "directory of the sockets")->capture_default_str();
  command->add_option("--program", arguments->program, "the new program (default: the file that the old one has)");
  command->add_option("--within", arguments->within_s, "seconds until the new process must serve")
      ->check(CLI::Range(1, 3'600))
      ->capture_default_str();
  command->add_flag("--wait", arguments->wait, "wait until the old processes have ended");
  command->callback([&cli, arguments] { run(cli, *arguments); });
}

}  // namespace tidegate::cli
