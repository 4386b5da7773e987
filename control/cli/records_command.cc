// SPDX-License-Identifier: Apache-2.0
// The command for a zone's records: tidegate records list|set|delete|import|export ZONE.

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "conf/document.h"
#include "conf/zone_includes.h"
#include "control/api/json_bounds.h"
#include "control/cli/change.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "core/percent.h"

namespace tidegate::cli {

namespace {

using nlohmann::json;

constexpr const char* kZoneFile = "text/dns";
constexpr const char* kRecordsOfInput = "-";

struct RecordsArguments {
  std::string action, zone;
  std::vector<std::string> operands;
  int64_t ttl_s = -1;  // below 0: not given
  ChangeOptions change;
};

bool misuse(Cli& cli, std::string_view why) {
  fmt::print(stderr, "tidegate: {}\n", why);
  cli.exit_status = kMisuse;
  return false;
}

std::string zone_path(const RecordsArguments& arguments) { return "/v1/zones/" + percent_encode(arguments.zone); }

// The path for the first operands: "/records", "/records/www" or "/records/www/A".
std::string records_path(const RecordsArguments& arguments, size_t most) {
  std::string path = zone_path(arguments) + "/records";
  for (size_t i = 0; i < most && i < arguments.operands.size(); ++i)
    path += "/" + percent_encode(arguments.operands[i]);
  return path;
}

// Sends a write and prints the result. Faults are shown with carets in `document`.
void write(Cli& cli, ApiRequest request, const RecordsArguments& arguments, const std::string& document = {}) {
  const ChangeOptions& options = arguments.change;
  request.target += change_query(options);
  const std::optional<std::string> if_match = entity_tag_for(cli, options.if_match);
  if (!if_match) return;
  request.headers.emplace_back("If-Match", *if_match);
  if (const std::optional<json> answer = call(cli, std::move(request), document)) print_outcome(cli, *answer, options);
}

void list(Cli& cli, const RecordsArguments& arguments) {
  if (arguments.operands.size() > 2) return void(misuse(cli, "records list takes ZONE, NAME and TYPE"));
  constexpr size_t kPage = 1'000;
  Table table({"NAME", "TTL", "TYPE", "DATA"});
  json all = json::array();
  for (size_t offset = 0, total = 1; offset < total; offset += kPage) {
    ApiRequest request;
    request.target = records_path(arguments, 2);
    if (arguments.operands.size() < 2) request.target += fmt::format("?offset={}&limit={}", offset, kPage);
    const std::optional<json> answer = call(cli, std::move(request));
    if (!answer) return;
    total = number_member(*answer, "total");
    for (const json& set : answer->value("records", json::array())) {
      for (const json& data : set.value("data", json::array())) {
        table.add({string_member(set, "name"), fmt::format("{}", number_member(set, "ttl")), string_member(set, "type"),
                   data.is_string() ? data.get<std::string>() : ""});
      }
      if (cli.json()) all.push_back(set);
    }
  }
  if (cli.json()) return fmt::print("{}\n", dump({{"zone", arguments.zone}, {"records", std::move(all)}}));
  table.print();
}

void set(Cli& cli, const RecordsArguments& arguments) {
  if (arguments.operands.size() < 3)
    return void(misuse(cli, "records set takes ZONE, NAME, TYPE and the records' DATA"));
  ApiRequest request;
  request.method = "PUT";
  request.target = records_path(arguments, 2);
  request.content_type = "application/json";
  json body = {{"data", std::vector<std::string>(arguments.operands.begin() + 2, arguments.operands.end())}};
  if (arguments.ttl_s >= 0) body["ttl"] = arguments.ttl_s;
  request.body = dump(body);
  write(cli, std::move(request), arguments);
}

void remove(Cli& cli, const RecordsArguments& arguments) {
  if (arguments.operands.size() != 2) return void(misuse(cli, "records delete takes ZONE, NAME and TYPE"));
  ApiRequest request;
  request.method = "DELETE";
  request.target = records_path(arguments, 2);
  write(cli, std::move(request), arguments);
}

// The file with all files that it includes, which must be in its folder or below.
std::optional<std::string> read_zone_file(Cli& cli, const std::string& path) {
  std::ifstream file;
  if (path != kRecordsOfInput) file.open(path, std::ios::binary);
  std::istream& in = path == kRecordsOfInput ? std::cin : file;
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (path != kRecordsOfInput && !file.is_open()) {
    misuse(cli, fmt::format("cannot read {}", path));
    return std::nullopt;
  }
  if (!has_includes(text)) return text;
  const FileReader beside = files_beside(path == kRecordsOfInput ? "./standard-input" : path);
  std::string error;
  const std::string name = std::filesystem::path(path).filename().string();
  const std::shared_ptr<const std::string> whole = put_includes_in(name, text, beside, error);
  if (whole) return *whole;
  fmt::print(stderr, "{}\n", error);
  cli.exit_status = kRefused;
  return std::nullopt;
}

void import_file(Cli& cli, const RecordsArguments& arguments) {
  if (arguments.operands.size() != 1)
    return void(misuse(cli, "records import takes ZONE and FILE; - is standard input"));
  std::optional<std::string> text = read_zone_file(cli, arguments.operands[0]);
  if (!text) return;
  ApiRequest request;
  request.method = "PUT";
  request.target = zone_path(arguments) + "/file";
  request.content_type = kZoneFile;
  request.body = *text;
  write(cli, std::move(request), arguments, *text);
}

void export_file(Cli& cli, const RecordsArguments& arguments) {
  if (arguments.operands.size() > 1) return void(misuse(cli, "records export takes ZONE and perhaps a FILE"));
  ApiRequest request;
  request.target = zone_path(arguments) + "/file";
  const std::optional<HttpResponse> response = call_raw(cli, std::move(request));
  if (!response) return;
  if (response->status != 200) return print_refusal(cli, *response, "");
  if (arguments.operands.empty()) return fmt::print("{}", response->body);
  std::ofstream file(arguments.operands[0], std::ios::binary);
  file << response->body;
  if (!file.flush()) misuse(cli, fmt::format("cannot write {}", arguments.operands[0]));
}

}  // namespace

void add_records_command(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<RecordsArguments>();
  CLI::App* command = add_command(app, "records", "List, set or delete a zone's records, or import or export its file",
                                  "tidegate records set example.com www A 192.0.2.1 192.0.2.2 --ttl 60 --wait");
  command->add_option("ACTION", arguments->action, "list, set, delete, import or export")
      ->required()
      ->check(CLI::IsMember({"list", "set", "delete", "import", "export"}));
  command->add_option("ZONE", arguments->zone, "the zone's apex")->required();
  command->add_option("OPERANDS", arguments->operands,
                      "NAME and TYPE (list, delete), NAME, TYPE and the DATA of each record (set), a FILE (import, "
                      "export). NAME is below the zone, @ for the zone itself, or absolute with its final dot");
  command->add_option("--ttl", arguments->ttl_s, "seconds (set); else that of the records before, or 3600")
      ->check(CLI::Range(int64_t{0}, int64_t{INT32_MAX}));
  add_if_match(command, arguments->change);
  add_change_options(command, arguments->change);
  command->callback([&cli, arguments] {
    const std::string& action = arguments->action;
    const auto run = action == "list"     ? &list
                     : action == "set"    ? &set
                     : action == "delete" ? &remove
                     : action == "import" ? &import_file
                                          : &export_file;
    run(cli, *arguments);
  });
}

}  // namespace tidegate::cli
