// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdlib>

#include "conf/manual.h"
#include "conf/plane.h"
#include "core/exit_status.h"

namespace tidegate {

PlaneOptions parse_plane_options(int argc, char** argv, const std::string& plane, const std::string& about) {
  PlaneOptions options;
  CLI::App app(about, "tidegate-" + plane);
  app.set_version_flag("--version", std::string("tidegate ") + TIDEGATE_VERSION);
  app.add_option("--config", options.config, "Serve from this document alone, without a control; SIGHUP reads it again")
      ->type_name("FILE");
  app.add_option("--state", options.state_dir, "Directory of this host's state, which its tidegate-control writes")
      ->type_name("DIR")
      ->capture_default_str();
  app.add_option("--run", options.run_dir, "Directory of the admin socket " + plane + ".sock")
      ->type_name("DIR")
      ->capture_default_str();
  app.add_option("--node", options.node,
                 "This host's name in the configuration (default: its host name, or the only node)")
      ->type_name("NAME");
  app.add_option("--secret", options.secret_file,
                 "File with the site's secret, from which hash keys and ticket keys are derived")
      ->type_name("FILE");
  app.add_option_function<std::string>(
         "--metrics",
         [&options](const std::string& text) {
           options.metrics_listen = Endpoint::parse(text);
           if (!options.metrics_listen) throw CLI::ValidationError("--metrics", "'" + text + "' is not ADDRESS:PORT");
         },
         "Serve /metrics and /healthz over TCP too")
      ->type_name("ADDRESS:PORT");
  app.add_flag("--overlap", options.overlap,
               "Start beside a process that ends soon and still has the ports; otherwise they must be free");
  app.add_flag("--verbose", options.verbose, "Log details");
  add_manual_option(app, {"tidegate-" + plane, 8, about});
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? EXIT_SUCCESS : kExitWrongOptions);
  }
  return options;
}

}  // namespace tidegate
