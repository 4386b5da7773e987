// SPDX-License-Identifier: Apache-2.0
// The command run: a node's control and planes from one file, under a small supervisor.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "conf/document.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/supervisor.h"
#include "control/observe/fleet.h"
#include "control/vote/plans.h"
#include "core/fd.h"

namespace tidegate::cli {

namespace {

namespace fs = std::filesystem;

struct RunArguments {
  std::string file, node, secret;
  std::string state_dir = "/var/lib/tidegate", run_dir = "/run/tidegate";
  std::string listen, tokens, follow, peer_token_file;
  std::string tls_certificate, tls_key, peer_ca, keep_versions, secrets_group;
  bool insecure = false;
};

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> buffer{};
  return ::gethostname(buffer.data(), buffer.size() - 1) == 0 ? std::string(buffer.data()) : std::string();
}

// Returns the node with the given name, else this host's node, else the only node of the document.
const Node* find_node(const Model& model, const std::string& named) {
  const uint32_t index = model.node_index(named.empty() ? host_name() : named);
  if (index != kNone) return &model.nodes[index];
  return named.empty() && model.nodes.size() == 1 ? &model.nodes.front() : nullptr;
}

// Looks in this program's folder, in the build tree's folder of that name, and in PATH.
std::string program_path(const std::string& plane) {
  const std::string name = "tidegate-" + plane;
  std::error_code ignored;
  const fs::path here = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const fs::path& candidate : {here / name, here.parent_path() / plane / name}) {
    if (::access(candidate.c_str(), X_OK) == 0) return candidate.string();
  }
  return name;
}

// Makes all paths absolute, because the daemons and their successors, which get the same arguments, may have another
// working folder.
void make_absolute(RunArguments& arguments) {
  for (std::string* path :
       {&arguments.file, &arguments.secret, &arguments.state_dir, &arguments.run_dir, &arguments.tokens,
        &arguments.peer_token_file, &arguments.tls_certificate, &arguments.tls_key, &arguments.peer_ca}) {
    if (!path->empty()) *path = fs::absolute(*path).lexically_normal().string();
  }
}

// A folder has one supervisor: another one would take over the sockets on which the daemons of the first one speak. The
// lock ends with the process, also if the process is killed.
Result<UniqueFd> lock_folder(const std::string& run_dir) {
  const std::string path = run_dir + "/run.lock";
  UniqueFd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (!lock) return fail(fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    std::array<char, 16> holder{};
    const ssize_t bytes = ::pread(lock.get(), holder.data(), holder.size() - 1, 0);
    return fail(fmt::format("another tidegate run, process {}, has the folder {}; --run names another one",
                            bytes > 0 ? holder.data() : "unknown", run_dir));
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(lock.get(), 0) != 0 || ::pwrite(lock.get(), pid.data(), pid.size(), 0) < 0) {
    return fail(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  }
  return lock;
}

void run(Cli& cli, RunArguments arguments) {
  make_absolute(arguments);
  LoadedFile loaded = load_file(arguments.file);
  judge(loaded);
  if (!loaded.model) {
    fmt::print(stderr, "{}", render_faults(loaded.faults, loaded.text, stderr_is_terminal()));
    cli.exit_status = kRefused;
    return;
  }
  const Node* node = find_node(*loaded.model, arguments.node);
  if (!node) {
    fmt::print(stderr, "tidegate: {} has no node {}; --node says which one this host is\n", arguments.file,
               arguments.node.empty() ? host_name() : arguments.node);
    cli.exit_status = kMisuse;
    return;
  }
  std::vector<std::string> common = {"--state", arguments.state_dir, "--run", arguments.run_dir, "--node", node->name};
  if (!arguments.secret.empty()) common.insert(common.end(), {"--secret", arguments.secret});
  const auto command = [&](const std::string& plane) {
    DaemonCommand daemon{plane, {program_path(plane)}};
    daemon.arguments.insert(daemon.arguments.end(), common.begin(), common.end());
    return daemon;
  };
  std::vector<DaemonCommand> daemons = {command("control")};
  std::vector<std::string>& control = daemons.front().arguments;
  if (arguments.follow.empty()) {
    control.insert(control.end(), {"--config", arguments.file});
  } else {
    control.insert(control.end(), {"--follow", arguments.follow});
  }
  if (!arguments.peer_token_file.empty())
    control.insert(control.end(), {"--peer-token-file", arguments.peer_token_file});
  if (!arguments.listen.empty())
    control.insert(control.end(), {"--listen", arguments.listen, "--tokens", arguments.tokens});
  for (const auto& [option, value] :
       {std::pair("--tls-certificate", &arguments.tls_certificate), std::pair("--tls-key", &arguments.tls_key),
        std::pair("--peer-ca", &arguments.peer_ca), std::pair("--keep-versions", &arguments.keep_versions),
        std::pair("--secrets-group", &arguments.secrets_group)}) {
    if (!value->empty()) control.insert(control.end(), {option, *value});
  }
  if (arguments.insecure) control.emplace_back("--insecure");
  for (const std::string& plane : Fleet::planes_of(*node)) daemons.push_back(command(plane));
  std::error_code error;
  fs::create_directories(arguments.run_dir, error);
  if (error) {
    fmt::print(stderr, "tidegate: cannot create {}: {}\n", arguments.run_dir, error.message());
    cli.exit_status = kRefused;
    return;
  }
  const Result<UniqueFd> lock = lock_folder(arguments.run_dir);
  if (!lock) {
    fmt::print(stderr, "tidegate: {}\n", lock.error().message);
    cli.exit_status = kRefused;
    return;
  }
  cli.exit_status = Supervisor(std::move(daemons), arguments.run_dir).run();
}

}  // namespace

void add_run_command(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<RunArguments>();
  CLI::App* command =
      add_command(app, "run",
                  "Run the control and every plane that this node has, until interrupted.\n"
                  "The file is the first configuration; later ones come by apply. With --follow it only\n"
                  "says which planes there are: the leader says the rest.",
                  "tidegate run edge.yaml --state ./state --run ./run");
  command->add_option("FILE", arguments->file)->required();
  command->add_option("--node", arguments->node, "this host's name in FILE (default: its host name, or the only one)");
  command->add_option("--state", arguments->state_dir, "directory of the state")->capture_default_str();
  command->add_option("--run", arguments->run_dir, "directory of the sockets")->capture_default_str();
  command->add_option("--secret", arguments->secret, "file with the site's secret");
  CLI::Option* listen = command->add_option("--listen", arguments->listen, "ADDRESS:PORT of the API over TCP");
  listen->needs(command->add_option("--tokens", arguments->tokens, "the token file of the API"));
  command->add_option("--follow", arguments->follow, "ADDRESS:PORT of the control that leads");
  command->add_option("--peer-token-file", arguments->peer_token_file, "the token presented to other controls");
  command->add_option("--tls-certificate", arguments->tls_certificate, "PEM chain of --listen")->needs(listen);
  command->add_option("--tls-key", arguments->tls_key, "its private key")->needs(listen);
  command->add_option("--peer-ca", arguments->peer_ca, "PEM roots of the other controls' certificates");
  command->add_option("--keep-versions", arguments->keep_versions, "how many versions stay to be rolled back to");
  command->add_option("--secrets-group", arguments->secrets_group, "group that may read the private keys in the state");
  command->add_flag("--insecure", arguments->insecure, "allow TCP in clear beyond this host");
  command->callback([&cli, arguments] { run(cli, *arguments); });
}

}  // namespace tidegate::cli
