// SPDX-License-Identifier: Apache-2.0
// The commands of this host's own state: backup restore. They need no control, and no API.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "conf/state_store.h"
#include "control/cli/cli.h"
#include "core/clock.h"
#include "core/fd.h"
#include "core/lmdb_check.h"

namespace tidegate::cli {

namespace {

namespace fs = std::filesystem;

struct BackupArguments {
  std::string directory;
  std::string state_dir = "/var/lib/tidegate";
};

void refuse(Cli& cli, const std::string& why) {
  fmt::print(stderr, "refused: {}\n", why);
  cli.exit_status = kRefused;
}

// What a copy holds: "version 7, words 3, purge 0".
std::string contents(const StateStore& store) {
  const Result<StateHead> head = store.head();
  if (!head) return head.error().message;
  return fmt::format("version {}, words {}, purge {}", head->version, head->live_state, head->purge);
}

void backup(Cli& cli, const BackupArguments& arguments) {
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(arguments.state_dir, StateStore::Mode::read_only);
  if (!store) return refuse(cli, store.error().message);
  const fs::path target = fs::path(arguments.directory) / "state";
  std::error_code error;
  if (fs::exists(target / "data.mdb", error)) {
    return refuse(cli, fmt::format("{} holds a backup already", arguments.directory));
  }
  // Private keys are in it: for its owner alone.
  const mode_t before = ::umask(077);
  fs::create_directories(target, error);
  Result<void> copied = error
                            ? Result<void>(fail(fmt::format("cannot create {}: {}", target.string(), error.message())))
                            : (*store)->copy_to(target.string());
  ::umask(before);
  if (!copied) return refuse(cli, copied.error().message);
  fmt::print("{} holds {}\n", arguments.directory, contents(**store));
}

// Held by a control that runs.
bool is_in_use(const fs::path& environment) {
  const UniqueFd lock(::open((environment / "writer.lock").c_str(), O_RDWR | O_CLOEXEC));
  return lock && ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0;
}

// Who restores may be another user than the control that will write there: all of it belongs to the directory's owner.
void give_to_owner_of(const fs::path& state_dir, const fs::path& environment) {
  struct stat owner {};
  if (::stat(state_dir.c_str(), &owner) != 0) return;
  ::chmod(environment.c_str(), 02770);
  for (const fs::path& path : {environment, environment / "data.mdb", environment / "lock.mdb",
                               environment / "writer.lock", state_dir / kNotifyFile}) {
    if (::chown(path.c_str(), owner.st_uid, owner.st_gid) != 0 && errno == EPERM) {
      fmt::print(stderr, "tidegate: {} is not given to the owner of {}: {}\n", path.string(), state_dir.string(),
                 std::strerror(errno));
    }
  }
}

// The state of before is put aside, never over-written.
Result<std::string> put_aside(const fs::path& environment) {
  std::error_code error;
  if (!fs::exists(environment / "data.mdb", error)) {
    fs::remove_all(environment, error);
    return std::string();
  }
  const std::string aside = fmt::format("{}.before-restore-{}", environment.string(), realtime_ns() / kNsPerS);
  fs::rename(environment, aside, error);
  if (error) return fail(fmt::format("cannot move {} aside: {}", environment.string(), error.message()));
  return aside;
}

void restore(Cli& cli, const BackupArguments& arguments) {
  const fs::path from = fs::path(arguments.directory) / "state";
  const fs::path environment = fs::path(arguments.state_dir) / "state";
  std::error_code error;
  if (!fs::exists(from / "data.mdb", error)) return refuse(cli, arguments.directory + " holds no backup");
  if (Result<void> sound = lmdb::check(from.string()); !sound) {
    return refuse(cli, fmt::format("the backup in {} is damaged: {}", arguments.directory, sound.error().message));
  }
  if (is_in_use(environment)) {
    return refuse(cli, fmt::format("a tidegate-control runs on {}: stop it first", arguments.state_dir));
  }
  // Whole beside the old one first, so that a full disk leaves that where it is.
  const fs::path fresh = environment.string() + ".restoring";
  fs::remove_all(fresh, error);
  fs::create_directories(fresh, error);
  if (!error) fs::copy_file(from / "data.mdb", fresh / "data.mdb", error);
  if (error) return refuse(cli, fmt::format("cannot write {}: {}", fresh.string(), error.message()));
  const Result<std::string> aside = put_aside(environment);
  if (!aside) return refuse(cli, aside.error().message);
  fs::rename(fresh, environment, error);
  if (error) return refuse(cli, fmt::format("cannot move {} into place: {}", fresh.string(), error.message()));
  // Its first writer gives it the modes, and touches the notify file by which the planes find it.
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(arguments.state_dir, StateStore::Mode::read_write);
  if (!store) return refuse(cli, store.error().message);
  give_to_owner_of(arguments.state_dir, environment);
  fmt::print("{} holds {} now{}\n", arguments.state_dir, contents(**store),
             aside->empty() ? "" : fmt::format("; what was there is in {}", *aside));
}

}  // namespace

void add_backup_commands(CLI::App& app, Cli& cli) {
  const auto arguments = std::make_shared<BackupArguments>();
  CLI::App* command = add_command(
      app, "backup", "Copy this host's state, history and private keys included, while its control runs or not",
      "tidegate backup /var/backups/tidegate-monday");
  command->add_option("DIR", arguments->directory, "a directory of its own: it is created")->required();
  command->add_option("--state", arguments->state_dir, "directory of the state")->capture_default_str();
  command->callback([&cli, arguments] { backup(cli, *arguments); });

  command = add_command(app, "restore", "Put a backup in place of this host's state, while no control runs here",
                        "tidegate restore /var/backups/tidegate-monday");
  command->add_option("DIR", arguments->directory, "what tidegate backup made")->required();
  command->add_option("--state", arguments->state_dir, "directory of the state")->capture_default_str();
  command->callback([&cli, arguments] { restore(cli, *arguments); });
}

}  // namespace tidegate::cli
