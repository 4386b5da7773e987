// SPDX-License-Identifier: Apache-2.0
// The command l4: shows what the forwarder of this host holds now, and its packets: services, neighbours, flows, new
// flows as events, top talkers, captures.

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "control/api/json_bounds.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

struct L4Arguments {
  std::string view, run_dir = "/run/tidegate", backend, from;
  uint64_t limit = 100;
  // For captures and top talkers. Empty: the forwarder's default.
  std::string seconds, packets, bytes, snap, client, vip, port, protocol, reason, prefix, output;
  bool dropped = false;
};

constexpr uint64_t kLongestWatchMs = 310'000;  // the forwarder ends a capture after 300 seconds

std::string text_or(const json& entry, const char* member, const char* otherwise) {
  const auto found = entry.find(member);
  return found != entry.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

uint64_t number_of(const json& entry, const char* member) {
  const auto found = entry.find(member);
  return found != entry.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

bool flag_of(const json& entry, const char* member) {
  const auto found = entry.find(member);
  return found != entry.end() && found->is_boolean() && found->get<bool>();
}

void print_services(const json& services) {
  Table table({"service", "vip", "port", "pool", "forwarding", "backends", "share of the table"});
  for (const json& each : services) {
    const uint64_t first = number_of(each, "port"), last = number_of(each, "last_port");
    const json backends = each.value("backends", json::array());
    std::string shares;
    for (const json& backend : backends) {
      const std::string full = text_or(backend, "backend", "?");
      const double slots = static_cast<double>(std::max<uint64_t>(number_of(each, "slots"), 1));
      shares += fmt::format("{}{} {:.1f} %{}", shares.empty() ? "" : ", ", full.substr(full.find('/') + 1),
                            static_cast<double>(number_of(backend, "slots")) * 100 / slots,
                            flag_of(backend, "reachable") ? "" : " (unreachable)");
    }
    table.add(
        {text_or(each, "service", "?"), fmt::format("{} (IPv{})", text_or(each, "vip", "?"), number_of(each, "family")),
         fmt::format("{}/{}", text_or(each, "protocol", "?"),
                     first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last)),
         text_or(each, "pool", "?"), text_or(each, "forwarding", "?"), fmt::format("{}", backends.size()),
         shares.empty() ? "none may be used" : shares},
        shares.empty() ? Tone::bad : Tone::plain);
  }
  table.print();
}

void print_neighbours(const json& neighbours) {
  Table table({"address", "port", "state", "mac"});
  for (const json& each : neighbours) {
    const std::string mac = text_or(each, "mac", "");
    table.add({text_or(each, "address", "?"), text_or(each, "port", "?"), text_or(each, "state", "?"),
               mac.empty() ? "-" : mac},
              text_or(each, "state", "") == "incomplete" ? Tone::bad : Tone::plain);
  }
  table.print();
}

void print_flows(const json& flows) {
  Table table({"flow", "worker", "backend", "state", "assured", "begun here", "ends in"});
  for (const json& each : flows) {
    table.add({text_or(each, "hash", "?"), fmt::format("{}", number_of(each, "worker")), text_or(each, "backend", "?"),
               text_or(each, "state", "?"), flag_of(each, "assured") ? "yes" : "no",
               flag_of(each, "begun_here") ? "yes" : "no", fmt::format("{} s", number_of(each, "ends_in_ms") / 1'000)});
  }
  table.print();
}

void print_events(const json& events) {
  Table table({"ago", "client", "vip", "protocol", "service", "backend", "begun here"});
  for (const json& each : events) {
    table.add({fmt::format("{} ms", number_of(each, "ms_ago")), text_or(each, "client", "?"), text_or(each, "vip", "?"),
               text_or(each, "protocol", "?"), text_or(each, "service", "?"), text_or(each, "backend", "?"),
               flag_of(each, "begun_here") ? "yes" : "no"});
  }
  table.print();
}

void print_top(const json& top) {
  Table table({"network", "packets", "bytes", "packets that may be another's"});
  for (const json& each : top) {
    table.add({text_or(each, "network", "?"), fmt::format("{}", number_of(each, "packets")),
               fmt::format("{}", number_of(each, "bytes")), fmt::format("{}", number_of(each, "error"))});
  }
  table.print();
}

// Returns nothing, and reports the reason, if the forwarder does not answer with 200.
std::optional<HttpResponse> ask_forwarder(Cli& cli, const std::string& run_dir, HttpClientRequest request) {
  HttpTarget target;
  target.unix_path = run_dir + "/l4.sock";
  request.host = "tidegate";
  Result<HttpResponse> response = http_fetch(target, std::move(request));
  if (!response) {
    fmt::print(stderr, "tidegate: cannot reach the forwarder: {}\n", response.error().message);
    cli.exit_status = kUnreachable;
    return std::nullopt;
  }
  if (response->status == 200) return *std::move(response);
  print_refusal(cli, *response, {});
  return std::nullopt;
}

std::string query_of(const L4Arguments& arguments) {
  if (arguments.view == "capture") {
    return query({{"seconds", arguments.seconds},
                  {"packets", arguments.packets},
                  {"bytes", arguments.bytes},
                  {"snap", arguments.snap},
                  {"client", arguments.client},
                  {"vip", arguments.vip},
                  {"port", arguments.port},
                  {"protocol", arguments.protocol},
                  {"reason", arguments.reason},
                  {"dropped", arguments.dropped ? "true" : ""}});
  }
  const std::string limit = fmt::format("{}", arguments.limit);
  if (arguments.view == "top") {
    return query({{"seconds", arguments.seconds},
                  {"limit", limit},
                  {"prefix_v4", arguments.prefix.substr(0, arguments.prefix.find(','))},
                  {"prefix_v6", arguments.prefix.find(',') == std::string::npos
                                    ? ""
                                    : arguments.prefix.substr(arguments.prefix.find(',') + 1)}});
  }
  if (arguments.view == "events") return query({{"from", arguments.from}});
  return query({{"limit", limit}, {"from", arguments.from}, {"backend", arguments.backend}});
}

void save_capture(Cli& cli, const L4Arguments& arguments, const std::string& bytes) {
  std::ofstream file(arguments.output, std::ios::binary);
  file << bytes;
  file.close();
  if (file) return fmt::print("{} bytes of pcapng in {}\n", bytes.size(), arguments.output);
  fmt::print(stderr, "tidegate: cannot write {}\n", arguments.output);
  cli.exit_status = kRefused;
}

void show(Cli& cli, const L4Arguments& arguments) {
  HttpClientRequest request;
  request.target = "/" + arguments.view + query_of(arguments);
  if (arguments.view == "capture" || arguments.view == "top") request.timeout_ms = kLongestWatchMs;
  if (arguments.view == "capture" && arguments.output.empty()) {
    throw CLI::ValidationError("capture", "needs --write FILE");
  }
  const std::optional<HttpResponse> response = ask_forwarder(cli, arguments.run_dir, std::move(request));
  if (!response) return;
  if (arguments.view == "capture") return save_capture(cli, arguments, response->body);
  const Result<json> page = parse_json(response->body);
  if (!page || !page->is_object() || !page->contains(arguments.view) || !page->at(arguments.view).is_array()) {
    fmt::print(stderr, "tidegate: the forwarder's answer is not a page of {}\n", arguments.view);
    cli.exit_status = kUnreachable;
    return;
  }
  if (cli.json()) {
    fmt::print("{}\n", page->dump());
    return;
  }
  const json& entries = page->at(arguments.view);
  if (arguments.view == "services") print_services(entries);
  if (arguments.view == "neighbours") print_neighbours(entries);
  if (arguments.view == "flows") print_flows(entries);
  if (arguments.view == "events") print_events(entries);
  if (arguments.view == "top") print_top(entries);
  const json next = page->value("next", json());
  if (arguments.view != "events" && next.is_number_unsigned())
    fmt::print("there are more: --from {}\n", next.get<uint64_t>());
}

// "  12 drop  acl_denied  192.0.2.1:40000 > 198.51.100.100:80 tcp  http  (the client is in a list ...)"
void print_fates(const json& frames) {
  Table table({"frame", "fate", "client", "vip", "service", "flow", "backend", "why"});
  for (const json& each : frames) {
    const std::string verdict = text_or(each, "verdict", "?"), reason = text_or(each, "reason", "");
    table.add({fmt::format("{}", number_of(each, "frame")), reason.empty() ? verdict : verdict + " " + reason,
               text_or(each, "client", "-"), text_or(each, "vip", "-"), text_or(each, "service", "-"),
               text_or(each, "flow", "-"), text_or(each, "backend", "-"), text_or(each, "why", "")},
              verdict == "drop" ? Tone::bad : Tone::plain);
  }
  table.print();
}

}  // namespace

void explain_pcap(Cli& cli, const PcapArguments& arguments) {
  std::ifstream file(arguments.file, std::ios::binary);
  HttpClientRequest request;
  request.body.assign(std::istreambuf_iterator<char>(file), {});
  if (!file) {
    fmt::print(stderr, "tidegate: cannot read {}\n", arguments.file);
    cli.exit_status = kRefused;
    return;
  }
  request.method = "POST";
  request.target = "/pcap" + query({{"port", arguments.port}, {"to_us", arguments.to_us ? "true" : ""}});
  request.timeout_ms = 60'000;
  const std::optional<HttpResponse> response = ask_forwarder(cli, arguments.run_dir, std::move(request));
  if (!response) return;
  const Result<json> said = parse_json(response->body);
  if (!said || !said->is_object() || !said->contains("frames") || !said->at("frames").is_array()) {
    fmt::print(stderr, "tidegate: the forwarder's answer is no list of frames\n");
    cli.exit_status = kUnreachable;
    return;
  }
  if (cli.json()) return fmt::print("{}\n", said->dump());
  print_fates(said->at("frames"));
}

void add_l4_command(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<L4Arguments>();
  CLI::App* command = add_command(
      app, "l4",
      "Show what this host's forwarder holds now: services with the share of each backend, neighbours with\n"
      "their MAC addresses, flows, the last new flows (events), the networks that send most (top); or write the\n"
      "frames that a filter takes to a pcapng file, with what became of each (capture). A flow is named by the hash\n"
      "of its addresses and ports.",
      "tidegate l4 capture --client 203.0.113.9 --seconds 5 --write client.pcapng");
  command->add_option("VIEW", arguments->view)
      ->required()
      ->check(CLI::IsMember({"services", "neighbours", "flows", "events", "top", "capture"}));
  command->add_option("--run", arguments->run_dir, "directory of the forwarder's socket")->capture_default_str();
  command->add_option("--limit", arguments->limit, "most entries")->check(CLI::Range(1, 1'000))->capture_default_str();
  command->add_option("--from", arguments->from, "where the page before ended");
  command->add_option("--backend", arguments->backend, "POOL/NAME: the flows of this backend alone");
  command->add_option("--seconds", arguments->seconds, "capture, top: how long (10, 1; 300 at most)");
  command->add_option("--packets", arguments->packets, "capture: it ends after so many (1000)");
  command->add_option("--bytes", arguments->bytes, "capture: it ends after so many (1048576)");
  command->add_option("--snap", arguments->snap, "capture: bytes of each frame (256)");
  command->add_option("--client", arguments->client, "capture: address or network at either end");
  command->add_option("--vip", arguments->vip, "capture: address or network at either end");
  command->add_option("--port", arguments->port, "capture: port of either end");
  command->add_option("--protocol", arguments->protocol, "capture: tcp or udp");
  command->add_option("--reason", arguments->reason, "capture: only frames dropped for it");
  command->add_flag("--dropped", arguments->dropped, "capture: only frames that are dropped");
  command->add_option("--write", arguments->output, "capture: the file that is written");
  command->add_option("--prefix", arguments->prefix, "top: length of networks of IPv4, or of both: 24,56 (32,64)");
  command->callback([&cli, arguments] { show(cli, *arguments); });
}

}  // namespace tidegate::cli
