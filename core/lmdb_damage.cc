// SPDX-License-Identifier: Apache-2.0
#include "core/lmdb_damage.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <string_view>

#include "core/mutex.h"

namespace tidegate::lmdb {

constinit thread_local Guard* innermost_guard = nullptr;

namespace {

// A signal handler reads these: plain bytes, written before `env` is set and released after it is cleared.
struct Watched {
  std::array<char, 1024> directory{};
  uintptr_t map_begin = 0, map_end = 0;
  uintptr_t lock_begin = 0, lock_end = 0;
  volatile bool lock_lost = false;
  MDB_env* volatile env = nullptr;
  volatile bool expendable = false;
  volatile bool is_told = false;  // one line is enough
};
std::array<Watched, kMaxWatched> watched;
Mutex watched_mutex;  // among watch() and unwatch()

// A garbled length can lead a read this far past the end of the map.
constexpr uintptr_t kBeyondMap = 1 << 20;

struct sigaction previous_segv;
uintptr_t lmdb_code_begin = 0, lmdb_code_end = 0;

void write_all(std::string_view text) { (void)!::write(STDERR_FILENO, text.data(), text.size()); }

// Uses only what is safe in a signal handler.
void tell(Watched& at, std::string_view what, bool ends = true) {
  if (at.is_told && !ends) return;
  at.is_told = true;
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

Watched* watched_at(uintptr_t address) {
  for (Watched& at : watched) {
    if (at.env != nullptr && address >= at.map_begin && address < at.map_end + kBeyondMap) return &at;
  }
  return nullptr;
}

Watched* watched_of(const MDB_env* env) {
  for (Watched& at : watched) {
    if (at.env == env) return &at;
  }
  return nullptr;
}

// Puts empty memory in the place of a lock file that was cut off. Uses only what is safe in a signal handler.
bool replace_lock(uintptr_t address) {
  for (Watched& at : watched) {
    if (at.env == nullptr || address < at.lock_begin || address >= at.lock_end) continue;
    void* const begin = reinterpret_cast<void*>(at.lock_begin);  // NOLINT(performance-no-int-to-ptr)
    if (::mmap(begin, at.lock_end - at.lock_begin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) == MAP_FAILED) {
      return false;
    }
    at.lock_lost = true;
    write_all("tidegate: lmdb: ");
    write_all(at.directory.data());
    write_all("/lock.mdb was cut off; this environment is not used any more until every process has closed it\n");
    return true;
  }
  return false;
}

std::string_view describe(int signal) { return signal == SIGBUS ? "was cut off or cannot be read" : "is garbled"; }

uintptr_t program_counter(const void* context) {
#if defined(__x86_64__)
  return static_cast<uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return static_cast<const ucontext_t*>(context)->uc_mcontext.pc;
#else
  (void)context;
  return 0;
#endif
}

void on_fault(int signal, siginfo_t* info, void* context) {
  const bool is_fault = info->si_code > 0;  // of this thread, and not sent by kill(2)
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (is_fault && signal == SIGBUS && replace_lock(address)) return;
  Watched* const at = is_fault ? watched_at(address) : nullptr;
  Guard* const guard = innermost_guard;
  const uintptr_t pc = program_counter(context);
  const bool in_lmdb = pc >= lmdb_code_begin && pc < lmdb_code_end;
  if (is_fault && guard != nullptr && guard->env != nullptr && (guard->reads_only || in_lmdb || at != nullptr)) {
    if (Watched* const mine = watched_of(guard->env)) tell(*mine, describe(signal), false);
    siglongjmp(guard->back, 1);  // the handler was entered without a change of the signal mask (SA_NODEFER)
  }
  if (at != nullptr) tell(*at, describe(signal));
  // Back to the place of the fault. This time it ends the process, with a core or a sanitizer's report where wanted.
  if (signal == SIGSEGV && at == nullptr) {
    ::sigaction(SIGSEGV, &previous_segv, nullptr);
  } else {
    ::signal(signal, SIG_DFL);
  }
}

// LMDB aborts when this returns.
void on_assertion(MDB_env* env, const char* assertion) {
  bool ends = true;
  if (Watched* const at = watched_of(env)) {
    ends = !at->expendable || innermost_guard == nullptr;
    tell(*at, "is garbled", ends);
  }
  write_all(assertion);
  write_all("\n");
  if (!ends) throw Garbled{};
}

// Finds the place where the environment's file is mapped. LMDB has no call for it. Lines of proc(5) maps: begin-end
// modes offset dev inode path. An abandoned environment of the same directory may still be mapped: its file was moved
// or deleted, which the path shows. Its inode number may have been used again. The lock file lies beside it.
void find_maps(MDB_env* env, Watched& slot) {
  mdb_filehandle_t fd = -1;
  std::array<char, 4096> path{};
  if (mdb_env_get_fd(env, &fd) != MDB_SUCCESS) return;
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  if (::readlink(link.c_str(), path.data(), path.size() - 1) < 0) return;
  const std::string data = path.data();
  const std::string lock = data.substr(0, data.rfind('/')) + "/lock.mdb";
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0;
    int path_at = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %*s %*s %*s %n", &begin, &end, &path_at) != 2 || path_at == 0) continue;
    const std::string_view mapped = std::string_view(line).substr(static_cast<size_t>(path_at));
    if (mapped == data) {
      slot.map_begin = begin;
      slot.map_end = end;
    } else if (mapped == lock) {
      slot.lock_begin = begin;
      slot.lock_end = end;
    }
  }
}

// Where LMDB's code lies.
void find_code() {
  const auto inside = reinterpret_cast<uintptr_t>(&mdb_env_create);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2 || inside < begin || inside >= end) continue;
    lmdb_code_begin = begin;
    lmdb_code_end = end;
  }
}

void install_handlers() {
  find_code();
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  ::sigaction(SIGBUS, &action, nullptr);
  ::sigaction(SIGSEGV, &action, &previous_segv);
}

}  // namespace

void watch(MDB_env* env, const std::string& directory, bool expendable) {
  static std::once_flag installed;
  std::call_once(installed, install_handlers);
  mdb_env_set_assert(env, on_assertion);
  const MutexLock lock(watched_mutex);
  for (Watched& slot : watched) {
    if (slot.env != nullptr) continue;
    std::strncpy(slot.directory.data(), directory.c_str(), slot.directory.size() - 1);
    slot.expendable = expendable;
    slot.map_begin = slot.map_end = slot.lock_begin = slot.lock_end = 0;
    slot.lock_lost = false;
    find_maps(env, slot);
    slot.env = env;
    return;
  }
}

void tell_abandoned(MDB_env* env) {
  if (Watched* const at = watched_of(env)) tell(*at, "is damaged", false);
}

bool is_lock_lost(const MDB_env* env) {
  const Watched* const at = watched_of(env);
  return at != nullptr && at->lock_lost;
}

void unwatch(MDB_env* env) {
  const MutexLock lock(watched_mutex);
  for (Watched& slot : watched) {
    if (slot.env != env) continue;
    slot.env = nullptr;
    slot.expendable = false;
    slot.is_told = false;
  }
}

}  // namespace tidegate::lmdb
