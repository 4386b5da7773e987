// SPDX-License-Identifier: Apache-2.0
#include "core/lmdb_damage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string_view>

namespace tidegate::lmdb {
namespace {

// A signal handler reads these. So they are plain bytes, written before `env` is set and released after it is cleared.
struct Watched {
  std::array<char, 1024> directory{};
  uintptr_t map_begin = 0, map_end = 0;
  MDB_env* volatile env = nullptr;
  volatile bool can_do_without = false;
};
std::array<Watched, kMaxWatched> watched;
std::mutex watched_mutex;  // serialises watch() and unwatch()

thread_local bool has_survivor = false;

void write_all(std::string_view text) { (void)!::write(STDERR_FILENO, text.data(), text.size()); }

// Uses only calls that are safe in a signal handler.
void tell(const Watched& at, std::string_view what, bool ends = true) {
  write_all("tidegate: lmdb: ");
  write_all(at.directory.data());
  write_all("/data.mdb ");
  write_all(what);
  write_all(ends ? "; this process ends and its next start looks at the file\n"
                 : "; it is not used any more, the next start looks at it\n");
  std::array<char, 1024 + 32> mark{};
  std::strncpy(mark.data(), at.directory.data(), at.directory.size());
  std::strncat(mark.data(), kMark, 16);
  if (const int fd = ::open(mark.data(), O_CREAT | O_WRONLY | O_CLOEXEC, 0640); fd >= 0) ::close(fd);
}

void on_bus_error(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Watched& at : watched) {
    if (at.env != nullptr && address >= at.map_begin && address < at.map_end) {
      tell(at, "was cut off or cannot be read");
      break;
    }
  }
  // Returns to the instruction that failed. It fails again, and this time it ends the process, with a core dump if
  // enabled.
  ::signal(SIGBUS, SIG_DFL);
}

// LMDB aborts when this function returns. LMDB is C compiled with unwind tables, so an exception can pass through it.
void on_assertion(MDB_env* env, const char* assertion) {
  bool ends = true;
  for (const Watched& at : watched) {
    if (at.env != env) continue;
    ends = !at.can_do_without || !has_survivor;
    tell(at, "is garbled", ends);
  }
  write_all(assertion);
  write_all("\n");
  if (!ends) throw Garbled{};
}

// Finds where the environment's file is mapped, because LMDB does not say. A line of /proc/self/maps is: begin-end
// modes offset dev inode.
void find_map(MDB_env* env, Watched& slot) {
  mdb_filehandle_t fd = -1;
  struct stat file {};
  if (mdb_env_get_fd(env, &fd) != MDB_SUCCESS || ::fstat(fd, &file) != 0) return;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0, inode = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %*s %*s %lu", &begin, &end, &inode) != 3) continue;
    if (inode != file.st_ino) continue;
    slot.map_begin = begin;
    slot.map_end = end;
  }
}

}  // namespace

Survivor::Survivor() { has_survivor = true; }
Survivor::~Survivor() { has_survivor = false; }

void do_without_when_garbled(MDB_env* env) {
  const std::lock_guard lock(watched_mutex);
  for (Watched& slot : watched) {
    if (slot.env == env) slot.can_do_without = true;
  }
}

void watch(MDB_env* env, const std::string& directory) {
  static std::once_flag taken;
  std::call_once(taken, [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGBUS, &action, nullptr);
  });
  mdb_env_set_assert(env, on_assertion);
  const std::lock_guard lock(watched_mutex);
  for (Watched& slot : watched) {
    if (slot.env != nullptr) continue;
    std::strncpy(slot.directory.data(), directory.c_str(), slot.directory.size() - 1);
    find_map(env, slot);
    slot.env = env;
    return;
  }
}

void unwatch(MDB_env* env) {
  const std::lock_guard lock(watched_mutex);
  for (Watched& slot : watched) {
    if (slot.env != env) continue;
    slot.env = nullptr;
    slot.can_do_without = false;
  }
}

}  // namespace tidegate::lmdb
