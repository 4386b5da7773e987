// tidegate: the command line.

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "control/cli/cli.h"

int main(int argc, char** argv) {
  using namespace tidegate::cli;
  ::signal(SIGPIPE, SIG_IGN);
  Cli cli;
  CLI::App app(
      "The command line of an edge. One version, one decision, one explanation.\n"
      "Exit status: 0 done, 1 refused or faulty, 2 misuse, 3 nobody there.");
  app.set_version_flag("--version", std::string(TIDEGATE_VERSION));
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
  add_config_commands(app, cli);
  add_operate_commands(app, cli);
  add_observe_commands(app, cli);
  add_run_command(app, cli);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kMisuse;
  } catch (const nlohmann::json::exception&) {
    fmt::print(stderr, "tidegate: what answers at {} is no control of this release: its JSON has another shape\n",
               cli.api);
    return kUnreachable;
  }
  return cli.exit_status;
}
