// SPDX-License-Identifier: Apache-2.0
// The commands for observation: status health certificates explain watch.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <cstdlib>

#include "control/api/json_bounds.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/observe/explanation_text.h"
#include "core/clock.h"
#include "core/event_loop.h"

namespace tidegate::cli {

namespace {

using nlohmann::json;

void add_plane_row(Table& table, const json& node, const json& plane, const json& head) {
  const std::string refused = string_member(plane, "refused");
  const bool current = number_member(plane, "version") == number_member(head, "version") &&
                       number_member(plane, "words") == number_member(head, "words");
  const bool ready = bool_member(plane, "ready");
  const uint64_t workers = number_member(plane, "workers");
  table.add({string_member(node, "name"), string_member(plane, "plane"),
             !ready && !refused.empty()   ? "refused"
             : !ready                     ? "not ready"
             : current && refused.empty() ? "ok"
                                          : "behind",
             workers == 0 ? "" : fmt::format("{}", workers), fmt::format("{}", number_member(plane, "version")),
             fmt::format("{}", number_member(plane, "words")),
             number_member(plane, "applied_at_ns") == 0 ? "" : age(number_member(plane, "applied_at_ns")),
             string_member(plane, "digest").substr(0, 12), refused},
            !refused.empty() || !ready ? Tone::bad
            : current                  ? Tone::plain
                                       : Tone::faint);
}

// "etcd: write 12, edge leads, lease 1400 ms"
std::string store_note(const json& store) {
  if (string_member(store, "engine") != "etcd") return {};
  const std::string leader = string_member(store.value("leader", json::object()), "node");
  std::string note = fmt::format("etcd: write {}", number_member(store, "position"));
  if (const uint64_t behind = number_member(store, "behind"); behind != 0) note += fmt::format(" ({} behind)", behind);
  note += leader.empty() ? ", nobody leads" : ", " + leader + " leads";
  if (bool_member(store, "leads")) note += fmt::format(", lease {} ms", number_member(store, "lease_ms_left"));
  return note;
}

void print_certificate_troubles(const json& certificates);

void status(Cli& cli) {
  const std::optional<json> answer = call(cli, {"GET", "/v1/status", "", "", {}});
  if (!answer) return;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  const json head = answer->value("head", json::object());
  fmt::print("version {}  words {}  purge {}  digest {}  {}\n\n", number_member(head, "version"),
             number_member(head, "words"), number_member(head, "purge"), string_member(*answer, "digest").substr(0, 12),
             bool_member(*answer, "converged") ? paint("every plane has applied it", Tone::good)
                                               : paint("not every plane has applied it", Tone::bad));
  Table table({"NODE", "PLANE", "STATE", "WORKERS", "VERSION", "WORDS", "APPLIED", "DIGEST", "WHY"});
  for (const json& node : answer->value("nodes", json::array())) {
    if (!bool_member(node, "reachable")) {
      table.add({string_member(node, "name"), "", "unreachable", "", "", "", "", "", string_member(node, "why")},
                Tone::bad);
      continue;
    }
    const std::string trouble = string_member(node, "trouble");
    const std::string note = trouble.empty() ? store_note(node.value("store", json::object())) : trouble;
    const json own_head = node.value("head", json::object());
    table.add(
        {string_member(node, "name"), "control", trouble.empty() ? string_member(node, "role") : "cut off", "",
         fmt::format("{}", number_member(own_head, "version")), fmt::format("{}", number_member(own_head, "words")), "",
         string_member(node, "digest").substr(0, 12), note},
        trouble.empty() ? Tone::plain : Tone::bad);
    for (const json& plane : node.value("planes", json::array())) add_plane_row(table, node, plane, head);
    for (const json& plane : node.value("unreachable", json::array())) {
      table.add({string_member(node, "name"), string_member(plane, "plane"), "unreachable", "", "", "", "", "",
                 string_member(plane, "why")},
                Tone::bad);
    }
  }
  table.print();
  print_certificate_troubles(answer->value("certificates", json::object()));
}

// The names of backends that control looks up, if there are any.
void print_names(const json& answer) {
  const json names = answer.value("names", json::object());
  if (names.empty()) return;
  Table table({"NAME", "SERVERS", "LAST LOOK-UP"});
  for (const auto& [name, record] : names.items()) {
    const std::string trouble = string_member(record, "trouble");
    table.add(
        {name, fmt::format("{}", record.value("endpoints", json::array()).size()), trouble.empty() ? "found" : trouble},
        trouble.empty() ? Tone::plain : Tone::bad);
  }
  fmt::print("\n");
  table.print();
}

void health(Cli& cli) {
  const std::optional<json> answer = call(cli, {"GET", "/v1/health", "", "", {}});
  if (!answer) return;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  Table table({"POOL", "BACKEND", "ADDRESS", "WEIGHT", "STATE", "SINCE", "WHY"});
  for (const json& pool : answer->value("pools", json::array())) {
    for (const json& backend : pool.value("backends", json::array())) {
      const std::string state = string_member(backend, "state");
      const json word = backend.contains("admin") ? backend["admin"] : backend.value("health", json::object());
      const uint64_t since_ns = number_member(word, "since_ns");
      table.add({string_member(pool, "pool"), string_member(backend, "backend"), string_member(backend, "address"),
                 fmt::format("{}", number_member(backend, "weight")), state, since_ns == 0 ? "" : age(since_ns),
                 string_member(backend, "why")},
                state == "up" ? Tone::plain : Tone::bad);
    }
    if (bool_member(pool, "fail_open")) {
      table.add({string_member(pool, "pool"), "", "", "", "fail open", "", "nobody is up: everybody is used"},
                Tone::bad);
    }
  }
  table.print();
  print_names(*answer);
  Table planes({"NODE", "PLANE", "STATE", "SINCE", "WHY"});
  for (const json& plane : answer->value("planes", json::array())) {
    const std::string state = string_member(plane, "state");
    const json word = plane.contains("admin") ? plane["admin"] : plane.value("health", json::object());
    const uint64_t since_ns = number_member(word, "since_ns");
    planes.add({string_member(plane, "node"), string_member(plane, "plane"), state, since_ns == 0 ? "" : age(since_ns),
                string_member(plane, "why")},
               state == "up" ? Tone::plain : Tone::bad);
  }
  fmt::print("\n");
  planes.print();
}

// "in 59d", "ended 3h ago"
std::string distance(int64_t at_s, int64_t now_s) {
  const int64_t seconds = std::abs(at_s - now_s);
  constexpr int64_t kDayS = 86'400, kHourS = 3'600, kMinuteS = 60;
  const std::string text = seconds >= 2 * kDayS      ? fmt::format("{}d", seconds / kDayS)
                           : seconds >= 2 * kHourS   ? fmt::format("{}h", seconds / kHourS)
                           : seconds >= 2 * kMinuteS ? fmt::format("{}m", seconds / kMinuteS)
                                                     : fmt::format("{}s", seconds);
  return at_s > now_s ? "in " + text : text + " ago";
}

// "good, ends in 6d", "revoked"; empty if its stapling is off.
std::string staple_text(const json& certificate, int64_t now_s) {
  const json staple = certificate.value("ocsp", json::object());
  const std::string state = string_member(staple, "state");
  const auto end_s = static_cast<int64_t>(number_member(staple, "next_update_s"));
  if (state == "good") return "good, ends " + distance(end_s, now_s);
  if (state.empty() && bool_member(certificate, "must_staple")) return "off, but needed";
  return state;
}

bool staple_is_well(const json& certificate) {
  const json staple = certificate.value("ocsp", json::object());
  const std::string state = string_member(staple, "state");
  if (state.empty()) return !bool_member(certificate, "must_staple");
  return state == "waiting" || (state == "good" && number_member(staple, "failures") == 0);
}

// Why the last order failed, and why there is no newer OCSP answer.
std::string reasons_of(const json& certificate) {
  const std::string order = string_member(certificate, "error");
  const std::string staple = string_member(certificate.value("ocsp", json::object()), "error");
  return order.empty() || staple.empty() ? order + staple : order + "; " + staple;
}

void print_certificate_troubles(const json& certificates) {
  const json troubles = certificates.value("troubles", json::array());
  if (troubles.empty()) return;
  const auto now_s = static_cast<int64_t>(realtime_ns() / kNsPerS);
  Table table({"CERTIFICATE", "NEXT TRY", "WHY"});
  for (const json& each : troubles) {
    const auto next_s = static_cast<int64_t>(number_member(each, "next_try_s"));
    table.add({string_member(each, "certificate"), next_s <= now_s ? "now" : distance(next_s, now_s),
               string_member(each, "what")},
              Tone::bad);
  }
  fmt::print("\n");
  table.print();
  if (const uint64_t all = number_member(certificates, "in_trouble"); all > troubles.size()) {
    fmt::print("and {} more: tidegate certificates\n", all - troubles.size());
  }
}

void certificates(Cli& cli) {
  const std::optional<json> answer = call(cli, {"GET", "/v1/certificates", "", "", {}});
  if (!answer) return;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  const auto now_s = static_cast<int64_t>(realtime_ns() / kNsPerS);
  Table table({"CERTIFICATE", "SOURCE", "STATE", "ENDS", "NEXT ORDER", "FAILURES", "OCSP", "NAMES", "WHY"});
  for (const json& each : answer->value("certificates", json::array())) {
    std::vector<std::string> names;
    for (const json& name : each.value("names", json::array())) {
      if (name.is_string()) names.push_back(name.get<std::string>());
    }
    const auto end_s = static_cast<int64_t>(number_member(each, "not_after_s"));
    const auto due_s = static_cast<int64_t>(number_member(each, "due_s"));
    const bool ordered = string_member(each, "source") == "acme";
    const std::string state = string_member(each, "state");
    table.add(
        {string_member(each, "name"), string_member(each, "source"), state, end_s == 0 ? "" : distance(end_s, now_s),
         !ordered         ? ""
         : due_s <= now_s ? "now"
                          : distance(due_s, now_s),
         ordered ? fmt::format("{}", number_member(each, "failures")) : "", staple_text(each, now_s),
         fmt::format("{}", fmt::join(names, " ")), reasons_of(each)},
        state == "issued" && staple_is_well(each) ? Tone::plain : Tone::bad);
  }
  table.print();
}

struct ExplainArguments {
  std::string client, url, port, method, body, request;
  std::vector<std::string> headers;
};

void print_explanation(const json& steps) {
  for (const json& step : steps) {
    const ExplanationLine line = describe_step(step);
    fmt::print("  {:<3} {}{}\n", line.plane, line.node.empty() ? "" : paint("on " + line.node + "  ", Tone::faint),
               line.what);
    if (!line.why.empty()) fmt::print("      {}\n", paint("because " + line.why, Tone::faint));
  }
}

// If no proxy remembers the request, the exit status is not 0, so that a script can see it.
void explain_past_request(Cli& cli, const std::string& id) {
  ApiRequest request;
  request.target = "/v1/explain" + query({{"request", id}});
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return;
  const bool found = bool_member(*answer, "found");
  if (!found) cli.exit_status = kRefused;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  fmt::print("request {}{}\n", paint(id, Tone::strong), found ? "" : " is not known");
  print_explanation(answer->value("steps", json::array()));
  const auto print_nodes = [](const json& nodes, const char* verb) {
    for (const json& each : nodes) {
      fmt::print("  l7  {}{}\n      {}\n", paint("on " + string_member(each, "node") + "  ", Tone::faint), verb,
                 paint("because " + string_member(each, "why"), Tone::faint));
    }
  };
  if (!found) print_nodes(answer->value("not_found", json::array()), "does not know it");
  print_nodes(answer->value("unreachable", json::array()), "could not be asked");
}

void explain_client(Cli& cli, const ExplainArguments& arguments) {
  const bool is_url = arguments.url.find("://") != std::string::npos;
  ApiRequest request;
  request.target = "/v1/explain" + query({{"client", arguments.client},
                                          {is_url ? "url" : "name", arguments.url},
                                          {"client_port", arguments.port},
                                          {"method", arguments.method},
                                          {"headers", fmt::format("{}", fmt::join(arguments.headers, "\n"))},
                                          {"body", arguments.body}});
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  fmt::print("{} asks for {} (version {})\n", paint(arguments.client, Tone::strong), paint(arguments.url, Tone::strong),
             number_member(*answer, "version"));
  print_explanation(answer->value("steps", json::array()));
}

// Returns a server-sent event as a line: "applied proxy1/l7 version 7 words 12".
std::string event_line(const std::string& event, const json& data) {
  if (event == "version") {
    return fmt::format("version {} by {} {}", number_member(data, "version"), string_member(data, "author"),
                       string_member(data, "comment"));
  }
  if (event == "words") {
    std::string out_of_service;
    const json admin = data.value("admin", json::object()), health = data.value("health", json::object());
    for (const auto& [key, word] : admin.items()) {
      out_of_service += fmt::format("  {} {}", key, string_member(word, "state"));
    }
    for (const auto& [key, word] : health.items()) {
      if (!bool_member(word, "up")) out_of_service += fmt::format("  {} down: {}", key, string_member(word, "reason"));
    }
    return fmt::format("words {}{}", number_member(data, "sequence"),
                       out_of_service.empty() ? "  everything in service" : out_of_service);
  }
  if (event == "purge") {
    return fmt::format("purge {} {} {}", number_member(data, "sequence"), string_member(data, "kind"),
                       string_member(data, "value"));
  }
  const json head = data.value("head", json::object());
  if (event == "applied") {
    return fmt::format("applied {}/{} version {} words {}", string_member(data, "node"), string_member(data, "plane"),
                       number_member(head, "version"), number_member(head, "words"));
  }
  return fmt::format("{} version {} words {}", event, number_member(head, "version"), number_member(head, "words"));
}

// Prints the events of an event stream. It gets the stream line by line.
class EventPrinter {
 public:
  explicit EventPrinter(bool as_json) : as_json_(as_json) {}
  bool received_any() const { return !event_.empty(); }
  void take(std::string_view bytes) {
    buffer_.append(bytes);
    for (size_t end = buffer_.find('\n'); end != std::string::npos; end = buffer_.find('\n')) {
      take_line(std::string_view(buffer_).substr(0, end));
      buffer_.erase(0, end + 1);
    }
  }

 private:
  void take_line(std::string_view line) {
    constexpr std::string_view kEvent = "event: ", kData = "data: ";
    if (line.substr(0, kEvent.size()) == kEvent) event_ = std::string(line.substr(kEvent.size()));
    if (line.substr(0, kData.size()) != kData) return;
    const Result<json> data = parse_json(line.substr(kData.size()));
    if (!data) return;
    if (as_json_) {
      fmt::print("{}\n", dump({{"event", event_}, {"data", *data}}));
    } else {
      fmt::print("{}\n", printable(event_line(event_, *data)));
    }
    std::fflush(stdout);
  }
  bool as_json_;
  std::string buffer_, event_;
};

void watch(Cli& cli) {
  HttpClientRequest request;
  request.target = "/v1/watch";
  request.host = "tidegate";
  request.timeout_ms = 0;
  const std::optional<HttpTarget> target = api_target(cli, request.headers);
  if (!target) return;
  EventLoop loop;
  EventPrinter printer(cli.json());
  const auto stream = http_stream(
      loop, *target, std::move(request), [&](std::string_view bytes) { printer.take(bytes); },
      [&](const Result<HttpResponse>& response) {
        if (response && response->status != 200) {
          print_refusal(cli, *response, "");
        } else {
          const std::string why = response ? "" : ": " + response.error().message;
          fmt::print(stderr, "tidegate: {}{}\n",
                     printer.received_any() ? "the control plane ended the stream" : "cannot reach the control plane",
                     why);
          cli.exit_status = kUnreachable;
        }
        loop.stop();
      });
  loop.run();
}

}  // namespace

void add_observe_commands(CLI::App& app, Cli& cli) {
  add_command(app, "status", "What each plane of each host has applied", "tidegate status")->callback([&cli] {
    status(cli);
  });
  add_command(app, "health", "Every backend's state, why, and since when", "tidegate health")->callback([&cli] {
    health(cli);
  });
  add_command(app, "certificates", "Every certificate: from where, until when, and how its last order went",
              "tidegate certificates")
      ->callback([&cli] { certificates(cli); });
  add_command(app, "watch", "Print each change as it happens, until interrupted", "tidegate watch")->callback([&cli] {
    watch(cli);
  });

  const auto arguments = std::make_shared<ExplainArguments>();
  CLI::App* command = add_command(app, "explain", "Tell why a client's query, packet and request go where they go",
                                  "tidegate explain 203.0.113.9 https://www.example.com/ --port 50000");
  CLI::Option* const client = command->add_option("CLIENT", arguments->client, "the client's IP address");
  CLI::Option* const url = command->add_option("URL", arguments->url, "http(s)://host/path, or a DNS name");
  CLI::Option* const past =
      command->add_option("--request", arguments->request, "the X-Request-Id of a past request: what it met");
  client->needs(url);
  for (CLI::Option* of_client :
       {client, url, command->add_option("--port", arguments->port, "the client's port: gives the exact backend"),
        command->add_option("--method", arguments->method, "of the request (GET)"),
        command->add_option("--header", arguments->headers, "'Name: value' of the request; may be given again"),
        command->add_option("--body", arguments->body, "how many bytes the request's body has")}) {
    past->excludes(of_client);
  }
  const auto frames = std::make_shared<PcapArguments>();
  CLI::Option* const pcap = command->add_option(
      "--pcap", frames->file, "a capture file: what this host's forwarder would do with each frame; nothing is sent");
  pcap->excludes(client)->excludes(past);
  command->add_option("--run", frames->run_dir, "directory of the forwarder's socket")->capture_default_str();
  command->add_option("--in", frames->port, "with --pcap: the port by which the frames come in (the first)");
  command->add_flag("--to-us", frames->to_us, "with --pcap: as if the frames were sent to the port's MAC address");
  command->callback([&cli, arguments, frames] {
    if (!frames->file.empty()) return explain_pcap(cli, *frames);
    if (!arguments->request.empty()) return explain_past_request(cli, arguments->request);
    if (arguments->client.empty()) throw CLI::RequiredError("CLIENT and URL, --request or --pcap,");
    explain_client(cli, *arguments);
  });
}

}  // namespace tidegate::cli
