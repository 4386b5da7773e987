// SPDX-License-Identifier: Apache-2.0
// The commands of the configuration: check keys apply get diff rollback versions audit.

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "conf/document.h"
#include "conf/expansion.h"
#include "conf/fields.h"
#include "conf/manual.h"
#include "conf/model.h"
#include "conf/warnings.h"
#include "control/api/bundle.h"
#include "control/api/json_bounds.h"
#include "control/api/shapes.h"
#include "control/cli/change.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/wait.h"
#include "control/vote/plans.h"
#include "core/clock.h"
#include "core/percent.h"

namespace tidegate::cli {

namespace {

using nlohmann::json;

constexpr const char* kStandardInput = "-";

std::string shown_name(const std::string& path) { return path == kStandardInput ? "standard input" : path; }

// Reads a document, or a bundle of `get --with-files`, from a file or from standard input.
struct Input {
  LoadedFile loaded;
  std::optional<Bundle> bundle;
};

Input load_input(const std::string& path) {
  Input input;
  std::ifstream file;
  if (path != kStandardInput) file.open(path, std::ios::binary);
  std::istream& in = path == kStandardInput ? std::cin : file;
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (Result<Bundle> bundle = text.starts_with("{") ? decode_bundle(text) : fail("no bundle")) {
    input.bundle = *std::move(bundle);
  } else if (path != kStandardInput) {
    input.loaded = load_file(path);
    return input;
  }
  if (!input.bundle) {
    input.loaded = load_text_of(shown_name(path), std::move(text));
    return input;
  }
  // A bundle is the content of a version, so there is nothing to expand.
  LoadedFile& loaded = input.loaded;
  loaded.text = input.bundle->text;
  loaded.document = Document::parse(input.bundle->file, loaded.text, loaded.faults);
  if (loaded.document) loaded.model = load_model(*loaded.document, files_from(input.bundle->files), loaded.faults);
  return input;
}

void check(Cli& cli, const std::string& path) {
  LoadedFile loaded = load_input(path).loaded;
  judge(loaded);
  std::vector<Fault> warnings;
  if (loaded.model) {
    warnings = find_warnings(*loaded.document, *loaded.model, static_cast<int64_t>(realtime_ns() / kNsPerS));
  } else {
    cli.exit_status = kRefused;
  }
  if (cli.json()) {
    fmt::print(
        "{}\n",
        dump({{"ok", loaded.model != nullptr}, {"faults", to_json(loaded.faults)}, {"warnings", to_json(warnings)}}));
    return;
  }
  for (Fault& warning : warnings) warning.detail = "warning: " + warning.detail;
  fmt::print("{}", render_faults(loaded.model ? warnings : loaded.faults, loaded.text, stdout_is_terminal()));
  const auto count = [](size_t n, const char* what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); };
  if (!loaded.model) return fmt::print("{}\n", count(loaded.faults.size(), "fault"));
  const json document = loaded.document->to_json();
  size_t objects = 0;
  for (const auto& [key, section] : document.items()) objects += section.is_array() ? section.size() : 1;
  fmt::print("ok: {}{}\n", count(objects, "object"), warnings.empty() ? "" : ", " + count(warnings.size(), "warning"));
}

// Included and inserted text exists only here, so the faults of such a document are reported here.
bool expand_into(Cli& cli, LoadedFile& loaded, Bundle& bundle) {
  judge(loaded);
  if (loaded.model) {
    bundle.text = loaded.document->to_yaml();
    return true;
  }
  const std::string faults = render_faults(loaded.faults, loaded.text, stderr_is_terminal());
  if (cli.json()) {
    fmt::print("{}\n", dump({{"faults", to_json(loaded.faults)}}));
  } else {
    fmt::print(stderr, "{}refused: the document has faults\n", faults);
  }
  cli.exit_status = kRefused;
  return false;
}

// Returns the document with every file that it names. A file that cannot be read is left out, and the API reports it as
// a fault.
std::optional<Bundle> collect(Cli& cli, const std::string& path) {
  Input input = load_input(path);
  if (input.bundle) return std::move(input.bundle);
  const LoadedFile& loaded = input.loaded;
  Bundle bundle;
  bundle.file = shown_name(path);
  bundle.text = loaded.text;
  if (loaded.text.empty() && !loaded.document) {
    fmt::print(stderr, "{}", render_faults(loaded.faults, "", stderr_is_terminal()));
    cli.exit_status = kRefused;
    return std::nullopt;
  }
  if (!loaded.document) return bundle;
  if (loaded.document->expanded() && !expand_into(cli, input.loaded, bundle)) return std::nullopt;
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
  request.target = "/v1/config" + change_query(options);
  request.content_type = kBundleType;
  request.body = encode_bundle(*bundle);
  const std::optional<std::string> if_match = entity_tag_for(cli, options.if_match);
  if (!if_match) return;
  request.headers.emplace_back("If-Match", *if_match);
  if (const std::optional<json> answer = call(cli, std::move(request), bundle->text))
    print_outcome(cli, *answer, options);
}

void roll_back(Cli& cli, uint64_t version, const ChangeOptions& options) {
  ApiRequest request;
  request.method = "POST";
  request.target = "/v1/rollback" + change_query(options);
  request.content_type = "application/json";
  request.body = dump({{"to", version}});
  if (const std::optional<json> answer = call(cli, std::move(request))) print_outcome(cli, *answer, options);
}

void confirm(Cli& cli, uint64_t version) {
  ApiRequest request;
  request.method = "POST";
  request.target = "/v1/confirm";
  request.content_type = "application/json";
  request.body = dump({{"version", version}});
  const std::optional<json> answer = call(cli, std::move(request));
  if (!answer) return;
  if (cli.json()) return fmt::print("{}\n", dump(*answer));
  fmt::print("version {} is confirmed\n", version);
}

// Takes "pool" and "pools". The API refuses anything else.
std::string section_key(const std::string& kind) {
  for (const Field& field : root_section().fields) {
    const bool singular = field.list && field.key.size() == kind.size() + 1 && field.key.starts_with(kind);
    if (singular || (field.section != nullptr && field.section->noun == kind)) return std::string(field.key);
  }
  return kind;
}

struct GetArguments {
  std::string kind, name;
  uint64_t version = 0;
  bool with_files = false;
};

void get(Cli& cli, const GetArguments& arguments) {
  const auto& [kind, name, version, with_files] = arguments;
  if (with_files && !kind.empty()) {
    fmt::print(stderr, "tidegate: --with-files is of a whole configuration\n");
    cli.exit_status = kMisuse;
    return;
  }
  ApiRequest request;
  request.target = version != 0 ? fmt::format("/v1/versions/{}/config", version) : "/v1/config";
  if (!kind.empty()) request.target += "/" + percent_encode(section_key(kind));
  if (!name.empty()) request.target += "/" + percent_encode(name);
  request.headers.emplace_back("Accept", with_files   ? kBundleType
                                         : cli.json() ? "application/json"
                                                      : "application/yaml");
  const std::optional<HttpResponse> response = call_raw(cli, std::move(request));
  if (!response) return;
  if (response->status == 200) {
    // The document can be applied again, so literal text must not look like a variable.
    const bool document = kind.empty() && !with_files && !cli.json();
    fmt::print("{}", document ? escape_expansions(response->body) : response->body);
  } else {
    print_refusal(cli, *response, "");
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
  bool as_manual = false;
  std::string file, from, to, limit;
  uint64_t version = 0;
  GetArguments get;
  ChangeOptions change;
};

}  // namespace

void add_config_commands(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<ConfigArguments>();
  CLI::App* command = add_command(app, "check", "Name every fault of a configuration file, each with its place",
                                  "tidegate check edge.yaml");
  command->add_option("FILE", arguments->file, "a document or bundle; - is standard input")->required();
  command->callback([&cli, arguments] { check(cli, arguments->file); });

  command = add_command(app, "keys", "Explain every key that a configuration may hold, with unit, bounds and default",
                        "tidegate keys | less");
  command->add_flag("--print-manual", arguments->as_manual)->group("");  // prints the page edge.yaml(5)
  command->callback([arguments] { fmt::print("{}", arguments->as_manual ? manual_of_keys() : key_reference()); });

  command =
      add_command(app, "apply", "Make a file, with the certificates and zones it names, the configuration in force",
                  "tidegate apply edge.yaml --wait --comment \"second origin\"");
  command->add_option("FILE", arguments->file, "a document or bundle; - is standard input")->required();
  add_if_match(command, arguments->change);
  add_change_options(command, arguments->change);
  command->callback([&cli, arguments] { apply_file(cli, arguments->file, arguments->change); });

  command = add_command(app, "get", "Print the configuration in force, a section or an object of it",
                        "tidegate get pools origins");
  command->add_option("KIND", arguments->get.kind, "sites, nodes, pools, routes, ...; pool as well as pools");
  command->add_option("NAME", arguments->get.name);
  command->add_option("--version-number", arguments->get.version, "of that version instead (whole)");
  command->add_flag("--with-files", arguments->get.with_files,
                    "with the certificates, keys and zones it names, as one bundle that apply takes");
  command->callback([&cli, arguments] { get(cli, arguments->get); });

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

  command = add_command(app, "confirm", "Keep a version that was applied with --confirm", "tidegate confirm 12");
  command->add_option("VERSION", arguments->version)->required();
  command->callback([&cli, arguments] { confirm(cli, arguments->version); });

  command = add_command(app, "versions", "List the newest versions", "tidegate versions --limit 5");
  command->add_option("--limit", arguments->limit);
  command->callback([&cli, arguments] { versions(cli, arguments->limit); });

  command = add_command(app, "audit", "Who changed what, newest first", "tidegate audit --limit 50");
  command->add_option("--limit", arguments->limit);
  command->callback([&cli, arguments] { audit(cli, arguments->limit); });
}

}  // namespace tidegate::cli
