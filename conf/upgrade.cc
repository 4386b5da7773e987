// SPDX-License-Identifier: Apache-2.0
#include "conf/upgrade.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "conf/limits.h"
#include "conf/query.h"
#include "core/log.h"

namespace tidegate {
namespace {

using nlohmann::json;

constexpr uint64_t kWithinS = 60;
constexpr uint64_t kMostWithinS = 3'600;

std::vector<std::string> own_arguments() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> arguments;
  for (size_t at = 0; at < text.size();) {
    arguments.emplace_back(text.c_str() + at);
    at += arguments.back().size() + 1;
  }
  return arguments;
}

std::string line_of(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n"; }

}  // namespace

Upgrade::Upgrade(EventLoop& loop, ServiceManager& manager, std::string plane)
    : draining(loop), loop_(loop), manager_(manager), plane_(std::move(plane)), arguments_(own_arguments()) {
  std::error_code error;
  program_ = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (const char* supervisor = std::getenv("TIDEGATE_SUPERVISOR")) supervisor_ = supervisor;
}

// Returns an empty text if an upgrade may begin.
std::string Upgrade::reason_not_to(const HttpRequest& request) const {
  if (hooks == nullptr || !hooks->sockets) {
    return fmt::format("tidegate-{} hands nothing over: restart it", plane_);
  }
  if (!supervisor_.empty()) {
    return supervisor_ + " runs this daemon and would take its end for a crash: restart " + supervisor_;
  }
  if (successor_) return fmt::format("an upgrade is under way: process {} follows this one", successor_->pid());
  if (!may_start()) return "this process has no version in force, or ends";
  if (draining.size() >= kDrainingProcesses) {
    return fmt::format("{} processes before this one still drain; the bound is {}", draining.size(),
                       kDrainingProcesses);
  }
  const std::string program = request.parameter("program").value_or("/");
  return program.starts_with('/') ? std::string() : "program: an absolute path is needed";
}

void Upgrade::answer(const HttpExchangePtr& exchange) {
  const HttpRequest& request = exchange->request();
  const std::vector<QueryParameter> parameters = {
      {"program", "absolute path of the program to start"},
      QueryParameter::number("within", "seconds until it must serve", 1, kMostWithinS)};
  const bool is_post = request.method == "POST";
  if (const auto fault = check_query(request.query, is_post ? parameters : std::vector<QueryParameter>())) {
    return exchange->respond(HttpResponse::problem(400, "Bad Request", fault->detail));
  }
  if (!is_post) {
    if (request.method != "GET") {
      return exchange->respond(HttpResponse::problem(405, "Method Not Allowed", "an upgrade takes GET and POST"));
    }
    json status;
    add_status(status);
    return exchange->respond(HttpResponse::json(200, line_of(status)));
  }
  // The caller names a program that then gets this daemon's rights.
  if (request.peer_uid != 0 && request.peer_uid != ::geteuid()) {
    return exchange->respond(HttpResponse::problem(403, "Forbidden", "only root and the daemon's own user may"));
  }
  if (const std::string why = reason_not_to(request); !why.empty()) {
    return exchange->respond(HttpResponse::problem(409, "Conflict", why));
  }
  begin(exchange, request.parameter("program").value_or(program_),
        parse_number(request.parameter("within").value_or("")).value_or(kWithinS));
}

void Upgrade::begin(const HttpExchangePtr& exchange, const std::string& program, uint64_t within_s) {
  SuccessorOrder order{program,   arguments_, manager_.environment(), within_s * 1'000, plane_, hooks->data_format,
                       generation};
  if (!order.arguments.empty()) order.arguments.front() = program;
  SuccessorEvents events;
  events.sockets = [this] {
    std::vector<LentSocket> sockets = hooks->sockets();
    for (auto more : {more_sockets ? more_sockets() : std::vector<LentSocket>(), draining.lend()}) {
      sockets.insert(sockets.end(), more.begin(), more.end());
    }
    return sockets;
  };
  events.let_go = hooks->let_go;
  events.step = [this](const std::string& step, const std::string& detail) {
    log_info("upgrade: {}{}{}", step, detail.empty() ? "" : ": ", detail);
    tell({{"step", step}, {"detail", detail}});
  };
  events.served = [this] { served(); };
  events.failed = [this](const std::string& why) { failed(why); };
  events.connections = hooks->connections;
  Result<std::unique_ptr<Successor>> started = Successor::start(loop_, std::move(order), std::move(events));
  if (!started) {
    ++failures_;
    last_failure_ = started.error().message;
    log_error("upgrade: {}; this process goes on", last_failure_);
    return exchange->respond(HttpResponse::problem(409, "Conflict", last_failure_ + "; the old process goes on"));
  }
  successor_ = *std::move(started);
  asker_ = exchange;
  asker_->begin_stream(200, {{"Content-Type", "application/x-ndjson"}});
  log_info("upgrade: {} starts as process {}", program, successor_->pid());
  tell({{"step", "started"}, {"detail", program}, {"pid", successor_->pid()}});
}

// The upgrade goes on if the client has gone.
void Upgrade::tell(const json& line) const {
  if (asker_) (void)asker_->write(line_of(line));
}

void Upgrade::served() {
  log_info("upgrade: process {} serves; this one accepts nothing more", successor_->pid());
  manager_.handed_over(successor_->pid(), fmt::format("process {} follows", successor_->pid()));
  draining.forget_all();
  on_served();
  tell({{"outcome", "done"}, {"pid", successor_->pid()}, {"generation", generation + 1}});
  if (asker_) asker_->end_stream();
  asker_.reset();
}

void Upgrade::failed(const std::string& why) {
  ++failures_;
  last_failure_ = why;
  log_error("upgrade: the new process does not follow: {}; this one goes on", why);
  if (hooks->take_back) hooks->take_back();
  tell({{"outcome", "failed"}, {"reason", why}});
  if (asker_) asker_->end_stream();
  asker_.reset();
  loop_.defer([gone = std::make_shared<std::unique_ptr<Successor>>(std::move(successor_))] { gone->reset(); });
}

void Upgrade::stop() {
  if (successor_) successor_->give_up("the old process was told to stop");
}

void Upgrade::add_status(json& status) const {
  status["generation"] = generation;
  status["upgrade"] = nullptr;
  if (successor_) status["upgrade"] = {{"pid", successor_->pid()}, {"step", successor_->step()}};
  status["last_upgrade_failure"] = last_failure_.empty() ? json(nullptr) : json(last_failure_);
  status["draining_processes"] = draining.status();
}

std::string Upgrade::metrics_text(const std::string& prefix) const {
  std::string out;
  const auto family = [&](std::string_view what, std::string_view type, std::string_view help, uint64_t value) {
    out += fmt::format("# HELP {0}_{1} {2}\n# TYPE {0}_{1} {3}\n{0}_{1} {4}\n", prefix, what, help, type, value);
  };
  family("generation", "gauge", "How many processes have served with these sockets, one after the other.", generation);
  family("draining_processes", "gauge", "Processes before this one that finish their connections.", draining.size());
  family("draining_connections", "gauge", "Connections of these.", draining.connections());
  family("upgrade_failures_total", "counter", "New processes that did not come to follow this one.", failures_);
  return out;
}

}  // namespace tidegate
