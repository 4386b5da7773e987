// SPDX-License-Identifier: Apache-2.0
#include "control/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>

#include "conf/manual.h"
#include "control/etcd/client.h"
#include "core/exit_status.h"

namespace tidegate {

namespace {

void read_endpoint(const std::string& text, std::optional<Endpoint>& endpoint) {
  endpoint = Endpoint::parse(text);
  if (!endpoint) throw CLI::ValidationError(text + " is not ADDRESS:PORT");
}

std::string host_name() {
  std::array<char, 256> buffer{};
  return ::gethostname(buffer.data(), buffer.size() - 1) == 0 ? std::string(buffer.data()) : "localhost";
}

void add_etcd_options(CLI::App& app, ControlOptions& options, CLI::Option* follow) {
  CLI::Option* const etcd =
      app.add_option_function<std::string>(
             "--etcd",
             [&](const std::string& list) {
               Result<std::vector<std::string>> endpoints = etcd::parse_endpoints(list);
               if (!endpoints) throw CLI::ValidationError(endpoints.error().message);
               options.etcd_endpoints = *std::move(endpoints);
             },
             "endpoints of the etcd that holds the state of all hosts, with commas between them; one of the controls "
             "is elected to lead. Needs --secret")
          ->type_name("http[s]://HOST:PORT,...")
          ->excludes(follow);
  app.add_option("--etcd-prefix", options.etcd_prefix, "what the keys of this edge begin with")
      ->needs(etcd)
      ->check([](const std::string& prefix) {
        const bool sound = !prefix.empty() && prefix.size() <= 200 && prefix.back() == '/';
        return sound ? std::string() : std::string("a prefix ends with / and has at most 200 bytes");
      })
      ->capture_default_str();
  app.add_option("--etcd-ca", options.etcd_ca_file, "PEM roots of the members' certificates (default: the system's)")
      ->needs(etcd)
      ->check(CLI::ExistingFile);
  CLI::Option* const certificate =
      app.add_option("--etcd-certificate", options.etcd_certificate_file, "PEM certificate shown to etcd")
          ->needs(etcd)
          ->check(CLI::ExistingFile);
  CLI::Option* const key = app.add_option("--etcd-key", options.etcd_key_file, "its private key")
                               ->needs(certificate)
                               ->check(CLI::ExistingFile);
  certificate->needs(key);
  CLI::Option* const user = app.add_option("--etcd-user", options.etcd_user, "the user to log in as")->needs(etcd);
  CLI::Option* const password =
      app.add_option("--etcd-password-file", options.etcd_password_file, "file with the user's password")
          ->needs(user)
          ->check(CLI::ExistingFile);
  user->needs(password);
  app.add_option("--etcd-lease", options.etcd_lease_s,
                 "seconds without a sign of the leading control after which another one leads")
      ->needs(etcd)
      ->check(CLI::Range(uint64_t{1}, uint64_t{60}))
      ->capture_default_str();
  app.add_option("--etcd-checkpoint", options.etcd_checkpoint_writes,
                 "writes after which etcd gets the whole state anew; older writes are removed there")
      ->needs(etcd)
      ->check(CLI::Range(uint64_t{2}, uint64_t{1'000'000}))
      ->capture_default_str();
  app.add_flag("--etcd-begin", options.etcd_begin,
               "write this host's state into an etcd that lost its content; for one start of one control")
      ->needs(etcd);
}

void add_announce_options(CLI::App& app, ControlOptions& options) {
  CLI::Option* const announce =
      app.add_option_function<std::string>(
             "--announce", [&](const std::string&) { options.announce = true; },
             "bird: BIRD on this host announces the VIPs of its forwarder while it serves them")
          ->check(CLI::IsMember({"bird"}));
  app.add_option("--bird-socket", options.bird_socket, "BIRD's control socket")->needs(announce)->capture_default_str();
  app.add_option("--announce-file", options.announce_file,
                 "file that is written for BIRD; bird.conf includes it by include \"PATH*\", so that it may be missing")
      ->needs(announce)
      ->capture_default_str();
}

}  // namespace

ControlOptions parse_control_options(int argc, char** argv) {
  ControlOptions options;
  CLI::App app(
      "The control plane: keeps the edge's configuration in versions, answers the REST API, probes backends.\n"
      "It is the one writer of its host's state; the planes of the host follow that state.\n"
      "Example: tidegate-control --state /var/lib/tidegate --run /run/tidegate --listen 192.0.2.1:9090 --tokens tokens"
      " --tls-certificate control.crt --tls-key control.key");
  app.set_version_flag("--version", std::string("tidegate ") + TIDEGATE_VERSION);
  app.add_option("--state", options.state_dir, "directory of the state")->capture_default_str();
  app.add_option("--run", options.run_dir, "directory of the sockets: control.sock and the planes'")
      ->capture_default_str();
  app.add_option("--node", options.node,
                 "this host's name in the configuration (default: its host name, or the only node)");
  CLI::Option* listen = app.add_option_function<std::string>(
                               "--listen", [&](const std::string& text) { read_endpoint(text, options.listen); },
                               "ADDRESS:PORT of the API over TCP, besides the unix socket")
                            ->type_name("ADDRESS:PORT");
  CLI::Option* tokens = app.add_option("--tokens", options.tokens_file,
                                       "lines ROLE TOKEN [name]; roles: viewer, operator, publisher, admin, replica");
  listen->needs(tokens);
  CLI::Option* certificate = app.add_option("--tls-certificate", options.tls_certificate_file,
                                            "PEM chain of --listen, naming its address; SIGHUP reads it again");
  CLI::Option* key = app.add_option("--tls-key", options.tls_key_file, "its private key");
  certificate->needs(listen, key);
  key->needs(certificate);
  app.add_flag("--insecure", options.insecure,
               "let tokens and private keys cross the network in clear: without TLS, only loopback addresses will do");
  CLI::Option* follow = app.add_option_function<std::string>(
                               "--follow", [&](const std::string& text) { read_endpoint(text, options.follow); },
                               "adopt that control's state into this host's; writes are then refused here")
                            ->type_name("ADDRESS:PORT");
  app.add_option("--peer-token-file,--follow-token-file", options.peer_token_file,
                 "the token presented to other controls (default: the first replica token of --tokens)");
  app.add_option("--peer-ca", options.peer_ca_file,
                 "PEM roots of the other controls' certificates: they are spoken to by TLS");
  add_etcd_options(app, options, follow);
  app.add_option("--config", options.config, "document committed as the first version when the state is empty")
      ->excludes(follow)
      ->excludes("--etcd");
  app.add_option("--prepare-timeout", options.prepare_timeout_ms,
                 "milliseconds that a plane which answers may take to prepare a version; then it counts as refused")
      ->check(CLI::Range(uint64_t{100}, uint64_t{20'000}))
      ->capture_default_str();
  app.add_option("--keep-versions", options.versions_kept, "how many versions stay to be rolled back to, the newest")
      ->check(CLI::Range(size_t{2}, size_t{100'000}))
      ->capture_default_str();
  app.add_option("--secrets-group", options.secrets_group,
                 "group that may read the private keys in the state: its members are the users of this process and of "
                 "tidegate-l7 (default: as the directory STATE/secrets stands; a new one is its owner's alone)");
  CLI::Option* commands = app.add_option("--probe-commands", options.probe_commands,
                                         "directory of programs that probes of type command may run. Whoever may write "
                                         "the configuration may run them, with arguments of their own choice");
  app.add_option("--probe-commands-user", options.probe_commands_user,
                 "user that runs them if this process is root; otherwise its own user does")
      ->needs(commands)
      ->capture_default_str();
  add_announce_options(app, options);
  CLI::Option* secret = app.add_option("--secret", options.secret_file, "file with the site's secret");
  app.get_option("--etcd")->needs(secret);
  app.add_flag("--verbose", options.verbose, "log more");
  add_manual_option(app, {"tidegate-control", 8, "the control plane of an edge"});
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : kExitWrongOptions);
  }
  options.node_told = !options.node.empty();
  if (!options.node_told) options.node = host_name();
  return options;
}

}  // namespace tidegate
