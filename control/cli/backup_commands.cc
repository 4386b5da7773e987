// SPDX-License-Identifier: Apache-2.0
// The commands for this host's own state: backup restore. They need neither control nor API.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "conf/state_store.h"
#include "control/cli/cli.h"
#include "core/clock.h"
#include "core/fd.h"

namespace tidegate::cli {

namespace {

namespace fs = std::filesystem;

constexpr const char* kParts[] = {"secrets", "state"};  // parts of a state directory and of a backup

struct BackupArguments {
  std::string directory;
  std::string state_dir = "/var/lib/tidegate";
};

void refuse(Cli& cli, const std::string& why) {
  fmt::print(stderr, "refused: {}\n", why);
  cli.exit_status = kRefused;
}

// For people: "version 7, words 3, purge 0".
std::string contents(const StateStore& store) {
  const Result<StateHead> head = store.head();
  if (!head) return head.error().message;
  return fmt::format("version {}, words {}, purge {}", head->version, head->live_state, head->purge);
}

void backup(Cli& cli, const BackupArguments& arguments) {
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(arguments.state_dir, StateStore::Mode::read_only);
  if (!store) return refuse(cli, store.error().message);
  const fs::path target = arguments.directory;
  std::error_code error;
  for (const char* part : kParts) {
    if (fs::exists(target / part / "data.mdb", error)) {
      return refuse(cli, fmt::format("{} holds a backup already", arguments.directory));
    }
  }
  // The copy holds private keys, so it is for its owner only.
  const mode_t before = ::umask(077);
  fs::create_directories(target, error);
  Result<void> copied = error
                            ? Result<void>(fail(fmt::format("cannot create {}: {}", target.string(), error.message())))
                            : (*store)->copy_to(target.string());
  ::umask(before);
  if (!copied) return refuse(cli, copied.error().message);
  fmt::print("{} holds {}\n", arguments.directory, contents(**store));
}

// True while a control uses it.
bool is_in_use(const fs::path& environment) {
  const UniqueFd lock(::open((environment / "writer.lock").c_str(), O_RDWR | O_CLOEXEC));
  return lock && ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0;
}

// The mode and group of a directory that a backup replaces.
struct Access {
  mode_t mode;
  std::optional<gid_t> group;  // not set: the group of the state directory
};

Access access_of(const fs::path& directory, mode_t default_mode) {
  struct stat was {};
  if (::stat(directory.c_str(), &was) != 0) return {default_mode, std::nullopt};
  return {was.st_mode & 07777, was.st_gid};
}

// The user who restores may not be the user of the control. So everything is given to the owner of the state directory,
// with the earlier access rights.
void give_to_owner_of(const fs::path& state_dir, const fs::path& directory, const Access& access) {
  struct stat owner {};
  if (::stat(state_dir.c_str(), &owner) != 0) return;
  for (const fs::path& path : {directory, directory / "data.mdb", directory / "lock.mdb", directory / "writer.lock"}) {
    if (::chown(path.c_str(), owner.st_uid, access.group.value_or(owner.st_gid)) != 0 && errno == EPERM) {
      fmt::print(stderr, "tidegate: {} is not given to the owner of {}: {}\n", path.string(), state_dir.string(),
                 std::strerror(errno));
    }
  }
  ::chmod(directory.c_str(), access.mode);  // after chown(2), which clears the set-group-id bit
}

// Never overwrites the present state. Returns its new place, or nothing if there was none.
Result<std::string> put_aside(const fs::path& directory) {
  std::error_code error;
  if (!fs::exists(directory / "data.mdb", error)) {
    fs::remove_all(directory, error);
    return std::string();
  }
  const std::string aside = fmt::format("{}.before-restore-{}", directory.string(), realtime_ns() / kNsPerS);
  fs::rename(directory, aside, error);
  if (error) return fail(fmt::format("cannot move {} aside: {}", directory.string(), error.message()));
  ::chmod(aside.c_str(), 0700);
  return aside;
}

// Copies the backup into `staging` and opens it there like a control. So a backup that is damaged or lacks private keys
// is refused, and one with an earlier format is migrated, while the present state is still in place.
Result<std::string> stage(const std::string& backup, const fs::path& staging) {
  std::error_code error;
  fs::remove_all(staging, error);
  if (::mkdir(staging.c_str(), 0700) != 0) {
    return fail(fmt::format("cannot create {}: {}", staging.string(), std::strerror(errno)));
  }
  for (const char* part : kParts) {
    const fs::path from = fs::path(backup) / part / "data.mdb";
    if (!fs::exists(from, error)) continue;  // a backup of an earlier release has no secrets
    fs::create_directories(staging / part, error);
    if (!error) ::chmod((staging / part).c_str(), 0700);
    if (!error) fs::copy_file(from, staging / part / "data.mdb", error);
    if (error) return fail(fmt::format("cannot write {}: {}", (staging / part).string(), error.message()));
  }
  const Result<std::unique_ptr<StateStore>> store = StateStore::open(staging.string(), StateStore::Mode::read_write);
  if (!store) {
    // Without the advice, which is for a control that opens its own state.
    const std::string& why = store.error().message;
    return fail(fmt::format("the backup in {} {}: {}", backup,
                            is_damage(store.error()) ? "is damaged" : "cannot be used",
                            why.substr(0, why.find(". Stop tidegate-control"))));
  }
  return contents(**store);
}

// The private keys first, because a state that names missing keys counts as damaged.
Result<std::vector<std::string>> exchange(const fs::path& staging, const fs::path& state_dir) {
  std::vector<std::string> aside;
  for (const char* part : kParts) {
    const Result<std::string> moved = put_aside(state_dir / part);
    if (!moved) return moved.error();
    if (!moved->empty()) aside.push_back(*moved);
  }
  for (const char* part : kParts) {
    std::error_code error;
    fs::rename(staging / part, state_dir / part, error);
    if (error) {
      return fail(fmt::format("cannot move {} into place: {}", (staging / part).string(), error.message()));
    }
  }
  return aside;
}

void restore(Cli& cli, const BackupArguments& arguments) {
  const fs::path state_dir = arguments.state_dir;
  std::error_code error;
  if (!fs::exists(fs::path(arguments.directory) / "state/data.mdb", error)) {
    return refuse(cli, arguments.directory + " holds no backup");
  }
  if (is_in_use(state_dir / "state")) {
    return refuse(cli, fmt::format("a tidegate-control runs on {}: stop it first", arguments.state_dir));
  }
  fs::create_directories(state_dir, error);
  // The copy is staged in the state directory, next to the present state. If the disk is full, the present state is
  // unharmed.
  const fs::path staging = state_dir / "restoring";
  const Result<std::string> staged = stage(arguments.directory, staging);
  if (!staged) {
    fs::remove_all(staging, error);
    return refuse(cli, staged.error().message);
  }
  const Access state_access = access_of(state_dir / "state", 02770);
  const Access secrets_access = access_of(state_dir / "secrets", 0700);
  const Result<std::vector<std::string>> aside = exchange(staging, state_dir);
  if (!aside) return refuse(cli, aside.error().message);
  fs::remove_all(staging, error);
  give_to_owner_of(state_dir, state_dir / "secrets", secrets_access);
  give_to_owner_of(state_dir, state_dir / "state", state_access);
  {
    // Opening for writing sets the modes of the files, and touches the notify file, by which the planes find the state.
    const Result<std::unique_ptr<StateStore>> store =
        StateStore::open(arguments.state_dir, StateStore::Mode::read_write);
    if (!store) return refuse(cli, store.error().message);
    give_to_owner_of(state_dir, (*store)->notify_path(), access_of((*store)->notify_path(), 0640));
  }
  fmt::print("{} holds {} now{}\n", arguments.state_dir, *staged,
             aside->empty() ? "" : fmt::format("; what was there is in {}", fmt::join(*aside, " and ")));
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
