// SPDX-License-Identifier: Apache-2.0
// The command l4: what the forwarder of this host holds now: its services, neighbours and flows.

#include <fmt/format.h>

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
};

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

void show(Cli& cli, const L4Arguments& arguments) {
  HttpTarget target;
  target.unix_path = arguments.run_dir + "/l4.sock";
  HttpClientRequest request;
  request.host = "tidegate";
  request.target =
      "/" + arguments.view +
      query({{"limit", fmt::format("{}", arguments.limit)}, {"from", arguments.from}, {"backend", arguments.backend}});
  Result<HttpResponse> response = http_fetch(target, std::move(request));
  if (!response) {
    fmt::print(stderr, "tidegate: cannot reach the forwarder: {}\n", response.error().message);
    cli.exit_status = kUnreachable;
    return;
  }
  if (response->status != 200) return print_refusal(cli, *response, {});
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
  const json next = page->value("next", json());
  if (next.is_number_unsigned()) fmt::print("there are more: --from {}\n", next.get<uint64_t>());
}

}  // namespace

void add_l4_command(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<L4Arguments>();
  CLI::App* command = add_command(
      app, "l4",
      "Show what this host's forwarder holds now: services with the share of each backend, neighbours with\n"
      "their MAC addresses, or flows. A flow is named by the hash of its addresses and ports.",
      "tidegate l4 flows --backend web/web1");
  command->add_option("VIEW", arguments->view)->required()->check(CLI::IsMember({"services", "neighbours", "flows"}));
  command->add_option("--run", arguments->run_dir, "directory of the forwarder's socket")->capture_default_str();
  command->add_option("--limit", arguments->limit, "most entries")->check(CLI::Range(1, 1'000))->capture_default_str();
  command->add_option("--from", arguments->from, "where the page before ended");
  command->add_option("--backend", arguments->backend, "POOL/NAME: the flows of this backend alone");
  command->callback([&cli, arguments] { show(cli, *arguments); });
}

}  // namespace tidegate::cli
