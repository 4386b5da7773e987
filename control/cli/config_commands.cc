// The commands of the configuration: check keys apply get diff rollback versions audit.

#include <fmt/format.h>

#include <cstdio>

#include "conf/document.h"
#include "control/bundle.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/wait.h"
#include "control/json_bounds.h"

namespace tidegate::cli {

namespace {

using nlohmann::json;

struct ChangeOptions {
  bool dry_run = false, wait = false;
  std::string comment, if_match = "*";
};

void add_change_options(CLI::App* command, ChangeOptions& options) {
  command->add_flag("--dry-run", options.dry_run, "say what would change, change nothing");
  command->add_flag("--wait", options.wait, "return when every plane that can be reached has applied it");
  command->add_option("--comment", options.comment, "kept with the version");
}

// "version 7: 2 objects changed" and one line for each.
void tell_outcome(Cli& cli, const json& answer, const ChangeOptions& options) {
  if (cli.json()) {
    fmt::print("{}\n", dump(answer));
  } else {
    const std::string outcome = string_member(answer, "outcome");
    const json changes = changes_for_people(answer);
    if (outcome == "unchanged") {
      fmt::print("unchanged: version {} is this configuration already\n", number_member(answer, "version"));
    } else if (outcome == "dry_run") {
      fmt::print("dry run, nothing changed: {} object{} would\n", changes.size(), changes.size() == 1 ? "" : "s");
    } else {
      fmt::print("version {}: {} object{} changed\n", number_member(answer, "version"), changes.size(),
                 changes.size() == 1 ? "" : "s");
    }
    for (const json& change : changes) {
      const std::string what = string_member(change, "change");
      const Tone tone = what == "added" ? Tone::good : what == "removed" ? Tone::bad : Tone::plain;
      fmt::print(
          "  {}\n",
          paint(fmt::format("{:<8} {} {}", what, string_member(change, "kind"), string_member(change, "name")), tone));
    }
  }
  if (options.wait && !options.dry_run) wait_until_applied(cli, number_member(answer, "version"), 0);
}

void check(Cli& cli, const std::string& path) {
  const LoadedFile loaded = load_file(path);
  if (cli.json()) {
    json faults = json::array();
    for (const Fault& fault : loaded.faults) {
      faults.push_back({{"pointer", fault.pointer},
                        {"file", fault.file},
                        {"line", fault.line},
                        {"column", fault.column},
                        {"code", fault.code},
                        {"detail", fault.detail},
                        {"expected", fault.expected},
                        {"hint", fault.hint}});
    }
    fmt::print("{}\n", dump({{"ok", loaded.model != nullptr}, {"faults", std::move(faults)}}));
  } else if (loaded.model) {
    const json document = loaded.document->to_json();
    size_t objects = 0;
    for (const auto& [key, section] : document.items()) objects += section.is_array() ? section.size() : 1;
    fmt::print("ok: {} objects\n", objects);
  } else {
    fmt::print("{}", render_faults(loaded.faults, loaded.text, stdout_is_terminal()));
    fmt::print("{} fault{}\n", loaded.faults.size(), loaded.faults.size() == 1 ? "" : "s");
  }
  if (!loaded.model) cli.exit_status = kRefused;
}

// The document with every file that it names and that can be read; what cannot be read the API tells as a fault.
std::optional<Bundle> collect(Cli& cli, const std::string& path) {
  const LoadedFile loaded = load_file(path);
  Bundle bundle;
  bundle.file = path;
  bundle.text = loaded.text;
  if (loaded.text.empty() && !loaded.document) {
    fmt::print(stderr, "{}", render_faults(loaded.faults, "", stderr_is_terminal()));
    cli.exit_status = kRefused;
    return std::nullopt;
  }
  if (!loaded.document) return bundle;
  const FileReader disk = files_beside(path);
  std::vector<Fault> told_by_the_api;
  const FileReader recording = [&](const std::string& name, std::string& error) {
    std::shared_ptr<const std::string> bytes = disk(name, error);
    if (bytes) bundle.files[name] = bytes;
    return bytes;
  };
  (void)load_model(*loaded.document, recording, told_by_the_api);
  return bundle;
}

void apply_file(Cli& cli, const std::string& path, const ChangeOptions& options) {
  const std::optional<Bundle> bundle = collect(cli, path);
  if (!bundle) return;
  ApiRequest request;
  request.method = "PUT";
  request.target = "/v1/config" + query({{"dry_run", options.dry_run ? "true" : ""}, {"comment", options.comment}});
  request.content_type = kBundleType;
  request.body = encode_bundle(*bundle);
  const bool quoted = options.if_match == "*" || options.if_match.front() == '"';
  request.headers.emplace_back("If-Match", quoted ? options.if_match : '"' + options.if_match + '"');
  if (const std::optional<json> answer = call(cli, std::move(request), bundle->text))
    tell_outcome(cli, *answer, options);
}

void roll_back(Cli& cli, uint64_t version, const ChangeOptions& options) {
  ApiRequest request;
  request.method = "POST";
  request.target = "/v1/rollback" + query({{"dry_run", options.dry_run ? "true" : ""}, {"comment", options.comment}});
  request.content_type = "application/json";
  request.body = dump({{"to", version}});
  if (const std::optional<json> answer = call(cli, std::move(request))) tell_outcome(cli, *answer, options);
}

void get(Cli& cli, const std::string& kind, const std::string& name, uint64_t version) {
  ApiRequest request;
  request.target = version != 0 ? fmt::format("/v1/versions/{}/config", version) : "/v1/config";
  if (!kind.empty()) request.target += "/" + percent_encode(kind);
  if (!name.empty()) request.target += "/" + percent_encode(name);
  request.headers.emplace_back("Accept", cli.json() ? "application/json" : "application/yaml");
  const std::optional<HttpResponse> response = call_raw(cli, std::move(request));
  if (!response) return;
  if (response->status == 200) {
    fmt::print("{}", response->body);
  } else {
    tell_refusal(cli, *response, "");
  }
}

void diff(Cli& cli, const std::string& from, const std::string& to) {
  ApiRequest request;
  request.target = "/v1/diff" + query({{"from", from}, {"to", to}});
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  const json changes = changes_for_people(*answer);
  fmt::print("version {} to {}: {} object{} changed\n", number_member(*answer, "from"), number_member(*answer, "to"),
             changes.size(), changes.size() == 1 ? "" : "s");
  for (const json& change : changes) {
    fmt::print("\n{}\n", paint(fmt::format("{} {} {}", string_member(change, "change"), string_member(change, "kind"),
                                           string_member(change, "name")),
                               Tone::strong));
    for (const json& element : change.value("lines", json::array())) {
      const std::string line = element.is_string() ? element.get<std::string>() : "";
      const Tone tone = line.rfind("+ ", 0) == 0 ? Tone::good : line.rfind("- ", 0) == 0 ? Tone::bad : Tone::faint;
      fmt::print("{}\n", paint(line, tone));
    }
  }
}

void versions(Cli& cli, const std::string& limit) {
  ApiRequest request;
  request.target = "/v1/versions" + query({{"limit", limit}});
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  Table table({"VERSION", "MADE", "BY", "DIGEST", "COMMENT"});
  const uint64_t in_force = number_member(*answer, "in_force");
  for (const json& version : answer->value("versions", json::array())) {
    const uint64_t number = number_member(version, "version");
    table.add({fmt::format("{}{}", number, number == in_force ? " *" : ""),
               local_time(number_member(version, "created_ns")), string_member(version, "author"),
               string_member(version, "digest").substr(0, 12), string_member(version, "comment")},
              number == in_force ? Tone::strong : Tone::plain);
  }
  table.print();
}

void audit(Cli& cli, const std::string& limit) {
  ApiRequest request;
  request.target = "/v1/audit" + query({{"limit", limit}});
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  Table table({"WHEN", "WHO", "ACTION", "TARGET", "DETAIL"});
  for (const json& record : answer->value("audit", json::array())) {
    table.add({local_time(number_member(record, "at_ns")), string_member(record, "who"),
               string_member(record, "action"), string_member(record, "target"), string_member(record, "detail")});
  }
  table.print();
}

struct ConfigArguments {
  std::string file, kind, name, from, to, limit;
  uint64_t version = 0;
  ChangeOptions change;
};

}  // namespace

void add_config_commands(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<ConfigArguments>();
  CLI::App* command = add_command(app, "check", "Name every fault of a configuration file, each with its place",
                                  "tidegate check edge.yaml");
  command->add_option("FILE", arguments->file)->required();
  command->callback([&cli, arguments] { check(cli, arguments->file); });

  command = add_command(app, "keys", "Explain every key that a configuration may hold, with unit, bounds and default",
                        "tidegate keys | less");
  command->callback([] { fmt::print("{}", key_reference()); });

  command =
      add_command(app, "apply", "Make a file, with the certificates and zones it names, the configuration in force",
                  "tidegate apply edge.yaml --wait --comment \"second origin\"");
  command->add_option("FILE", arguments->file)->required();
  command->add_option("--if-match", arguments->change.if_match, "only over the version with this digest");
  add_change_options(command, arguments->change);
  command->callback([&cli, arguments] { apply_file(cli, arguments->file, arguments->change); });

  command = add_command(app, "get", "Print the configuration in force, a section or an object of it",
                        "tidegate get pools origins");
  command->add_option("KIND", arguments->kind, "sites, nodes, pools, routes, ...");
  command->add_option("NAME", arguments->name);
  command->add_option("--version-number", arguments->version, "of that version instead (whole)");
  command->callback([&cli, arguments] { get(cli, arguments->kind, arguments->name, arguments->version); });

  command = add_command(app, "diff", "Show what changed between two versions (default: the last change)",
                        "tidegate diff 6 8");
  command->add_option("FROM", arguments->from);
  command->add_option("TO", arguments->to);
  command->callback([&cli, arguments] { diff(cli, arguments->from, arguments->to); });

  command = add_command(app, "rollback", "Bring the content of a version back, certificates and zones included",
                        "tidegate rollback 6 --wait");
  command->add_option("VERSION", arguments->version)->required();
  add_change_options(command, arguments->change);
  command->callback([&cli, arguments] { roll_back(cli, arguments->version, arguments->change); });

  command = add_command(app, "versions", "List the newest versions", "tidegate versions --limit 5");
  command->add_option("--limit", arguments->limit);
  command->callback([&cli, arguments] { versions(cli, arguments->limit); });

  command = add_command(app, "audit", "Who changed what, newest first", "tidegate audit --limit 50");
  command->add_option("--limit", arguments->limit);
  command->callback([&cli, arguments] { audit(cli, arguments->limit); });
}

}  // namespace tidegate::cli
