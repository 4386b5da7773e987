// SPDX-License-Identifier: Apache-2.0
// The command import: turns another program's configuration into a document, and lists what was left out.

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "conf/document.h"
#include "conf/expansion.h"
#include "conf/model.h"
#include "control/api/shapes.h"
#include "control/cli/cli.h"
#include "control/cli/import/imported.h"
#include "control/cli/output.h"
#include "control/limits.h"
#include "control/vote/plans.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

struct ImportArguments {
  std::string file, from = "auto";
};

struct Language {
  const char* name;
  Result<void> (*import)(std::string_view, Imported&);
};
constexpr Language kLanguages[] = {
    {"nginx", import_nginx}, {"haproxy", import_haproxy}, {"httproute", import_httproute}};

// By the file's name: haproxy.cfg, httproute.yaml, nginx.conf.
const Language* language_of(const ImportArguments& arguments) {
  std::string name = arguments.from;
  if (name == "auto") {
    const std::string& file = arguments.file;
    name = file.ends_with(".cfg")                              ? "haproxy"
           : file.ends_with(".yaml") || file.ends_with(".yml") ? "httproute"
                                                               : "nginx";
  }
  for (const Language& language : kLanguages) {
    if (language.name == name) return &language;
  }
  return nullptr;
}

// The faults of the document. Files that it names are looked for in the folder of the imported file.
std::vector<Fault> faults_of(const Document& document, const std::string& path) {
  std::vector<Fault> faults;
  LoadedFile loaded;
  loaded.model = load_model(document, files_beside(path), faults);
  if (loaded.model) faults = plan_version(loaded.model, nullptr).faults;
  return faults;
}

void print(Cli& cli, const Imported& imported, const std::string& yaml, const std::vector<Fault>& faults) {
  const std::vector<LeftDirective> left = imported.left();
  if (cli.json()) {
    json list = json::array();
    for (const LeftDirective& each : left)
      list.push_back({{"line", each.line}, {"text", each.text}, {"why", each.why}});
    fmt::print("{}\n", json({{"document", yaml},
                             {"directives", imported.directives()},
                             {"taken", imported.taken()},
                             {"left", list},
                             {"faults", to_json(faults)}})
                           .dump(-1, ' ', false, json::error_handler_t::replace));
    return;
  }
  fmt::print("{}", yaml);
  for (const LeftDirective& each : left) fmt::print(stderr, "line {}: {}: {}\n", each.line, each.text, each.why);
  fmt::print(stderr, "{} of {} directives are taken, {} are not: see above\n", imported.taken(), imported.directives(),
             left.size());
  if (!faults.empty()) {
    fmt::print(stderr, "{}the document has faults; mend them before you use it\n",
               render_faults(faults, yaml, stderr_is_terminal()));
  }
}

void import(Cli& cli, const ImportArguments& arguments) {
  const auto refuse = [&](const std::string& reason) {
    fmt::print(stderr, "refused: {}: {}\n", arguments.file, reason);
    cli.exit_status = kRefused;
  };
  std::ifstream file(arguments.file, std::ios::binary);
  std::string text(kMaxImportBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.empty()) return refuse("it is empty or cannot be read");
  if (text.size() > kMaxImportBytes) return refuse(fmt::format("it has more than {} bytes", kMaxImportBytes));
  Imported imported;
  imported.file = [read = plain_files_beside(arguments.file)](const std::string& path) -> std::optional<std::string> {
    std::string error;
    const std::shared_ptr<const std::string> content = read(path, error);
    return content == nullptr ? std::nullopt : std::optional(*content);
  };
  if (const Result<void> read = language_of(arguments)->import(text, imported); !read)
    return refuse(read.error().message);
  const std::unique_ptr<Document> document = Document::from_json(arguments.file, imported.document());
  const std::string yaml = imported.with_comments(escape_expansions(document->to_yaml()));
  const std::vector<Fault> faults = faults_of(*document, arguments.file);
  if (!faults.empty()) cli.exit_status = kRefused;
  print(cli, imported, yaml, faults);
}

}  // namespace

void add_import_command(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<ImportArguments>();
  CLI::App* command = add_command(app, "import",
                                  "Print the configuration of nginx, HAProxy or a Kubernetes gateway as a document.\n"
                                  "Standard error has each line that is not taken, with the reason.",
                                  "tidegate import nginx.conf > edge.yaml");
  command->add_option("FILE", arguments->file, "nginx.conf, haproxy.cfg or httproute.yaml")->required();
  command->add_option("--from", arguments->from, "its language (default: by the name of the file)")
      ->check(CLI::IsMember({"auto", "nginx", "haproxy", "httproute"}));
  command->callback([&cli, arguments] { import(cli, *arguments); });
}

}  // namespace tidegate::cli
