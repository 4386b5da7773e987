// SPDX-License-Identifier: Apache-2.0
// tidegate: the command line.

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "conf/manual.h"
#include "conf/names.h"
#include "control/cli/cli.h"
#include "control/cli/completion.h"

namespace tidegate::cli {
namespace {

const std::string kVersionLine = std::string("tidegate ") + TIDEGATE_VERSION;

// Returns the first word that is neither an option nor an option's value. This is the word in the place of a command.
std::string command_word(const CLI::App& app, int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (!word.starts_with("-")) return word;
    const CLI::Option* option = app.get_option_no_throw(word);
    if (option != nullptr && option->get_expected_min() > 0) ++i;
  }
  return {};
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

// Returns true if there is no such command, and says so.
bool print_unknown_command(const CLI::App& app, const std::string& word) {
  const std::vector<std::string> names = command_names(app);
  if (word.empty() || std::find(names.begin(), names.end(), word) != names.end()) return false;
  const std::string hint = did_you_mean(word, {names.begin(), names.end()});
  fmt::print(stderr, "tidegate: there is no command {}; {}\n", in_quotes(word),
             hint.empty() ? fmt::format("the commands are {}", fmt::join(names, ", ")) : hint);
  return true;
}

void add_help_commands(CLI::App& app, Cli& cli) {
  CLI::App* command = add_command(app, "help", "Explain a command, or list them", "tidegate help drain");
  const auto word = std::make_shared<std::string>();
  command->add_option("COMMAND", *word);
  command->callback([&app, &cli, word] {
    if (print_unknown_command(app, *word)) {
      cli.exit_status = kMisuse;
      return;
    }
    // app.help() would print the help of the parsed command `help` itself.
    const CLI::App* told = word->empty() ? &app : app.get_subcommand(*word);
    const std::string name = word->empty() ? "tidegate" : "tidegate " + *word;
    fmt::print("{}", app.get_formatter()->make_help(told, name, CLI::AppFormatMode::Normal));
  });
  add_command(app, "version", "Print the version of this program", "tidegate version")->callback([] {
    fmt::print("{}\n", kVersionLine);
  });
}

// Does for the common options what parse() does, for a line that is not parsed.
void take_environment(const CLI::App& app, Cli& cli) {
  const auto take = [&app](const char* option, std::string& into) {
    const char* value = std::getenv(app.get_option(option)->get_envname().c_str());
    if (value != nullptr) into = value;
  };
  take("--api", cli.api);
  take("--token-file", cli.token_file);
  take("--ca", cli.ca_file);
}

}  // namespace
}  // namespace tidegate::cli

int main(int argc, char** argv) {
  using namespace tidegate::cli;
  ::signal(SIGPIPE, SIG_IGN);
  Cli cli;
  CLI::App app(
      "The command line of an edge. One version, one decision, one explanation.\n"
      "Exit status: 0 done, 1 refused or faulty, 2 misuse, 3 nobody there.");
  app.set_version_flag("--version", kVersionLine);
  app.require_subcommand(1);
  app.add_option("--api", cli.api, "the control plane: its socket, or http(s)://ADDRESS:PORT")
      ->envname("TIDEGATE_API")
      ->capture_default_str();
  app.add_option("--token-file", cli.token_file, "file with the bearer token for http(s)://")
      ->envname("TIDEGATE_TOKEN_FILE");
  app.add_option("--ca", cli.ca_file, "PEM roots of the control's certificate (default: the system's)")
      ->envname("TIDEGATE_CA");
  app.add_option("--output", cli.output, "human or json")
      ->check(CLI::IsMember({"human", "json"}))
      ->capture_default_str();
  add_init_command(app, cli);
  add_import_command(app, cli);
  add_config_commands(app, cli);
  add_operate_commands(app, cli);
  add_observe_commands(app, cli);
  add_backup_commands(app, cli);
  add_records_command(app, cli);
  add_hash_command(app, cli);
  add_run_command(app, cli);
  add_l4_command(app, cli);
  add_upgrade_command(app, cli);
  add_completion_command(app, cli);
  add_help_commands(app, cli);
  tidegate::add_manual_option(app, {"tidegate", 1, "the command line of an edge"});
  if (argc > 1 && argv[1] == std::string_view(kCompleteWord)) {
    take_environment(app, cli);
    for (const std::string& word : complete(app, cli, {argv + 2, argv + argc})) fmt::print("{}\n", word);
    return kDone;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0 && print_unknown_command(app, command_word(app, argc, argv))) return kMisuse;
    return app.exit(error) == 0 ? kDone : kMisuse;
  } catch (const nlohmann::json::exception&) {
    fmt::print(stderr, "tidegate: what answers at {} is no control of this release: its JSON has another shape\n",
               cli.api);
    return kUnreachable;
  }
  return cli.exit_status;
}
