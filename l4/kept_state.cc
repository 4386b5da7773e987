// SPDX-License-Identifier: Apache-2.0
#include "l4/kept_state.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>
#include <utility>

#include "conf/model/service.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "l4/conn_table.h"

namespace tidegate::l4 {
namespace {

constexpr char kKeptMagic[8] = {'T', 'G', 'F', 'L', 'O', 'W', 'S', '\n'};
constexpr uint64_t kKeptHeaderBytes = 4'096, kHugePageBytes = uint64_t{2} << 20;
constexpr uint64_t kMostKeptIdsBytes = uint64_t{16} << 20;  // 16,384 backends need 3 MB at most
constexpr useconds_t kLockLookUs = 2'000;
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

std::string errno_text() { return std::strerror(errno); }

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  std::getline(file, text);
  return text;
}

uint64_t random_word() {
  const std::string bytes = random_bytes(sizeof(uint64_t));
  uint64_t word = 0;
  std::memcpy(&word, bytes.data(), sizeof word);
  return word;
}

constexpr uint64_t round_up(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

// The first table begins at a huge page. Each table fills whole huge pages if it is at least as large as one.
constexpr uint64_t kTablesOffset = round_up(kKeptHeaderBytes + kMaxNeighbours * sizeof(KeptNeighbour), kHugePageBytes);

uint64_t bytes_of_table(uint64_t flows) { return round_up(ConnTable::bytes_for(flows), kKeptHeaderBytes); }

bool lock_soon(int file) {
  const uint64_t until_ns = monotonic_ns() + KeptState::kLockWaitMs * kNsPerMs;
  while (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK || monotonic_ns() > until_ns) return false;
    ::usleep(kLockLookUs);
  }
  return true;
}

}  // namespace

struct KeptState::Header {
  char magic[8];
  uint32_t layout;
  uint32_t ready;  // 1: `l4.flows.ids` names every id in the tables
  uint64_t table;  // random; `l4.flows.ids` has the same number
  uint64_t flows, secret_check, devices_check;
  uint64_t alive_ns;
  uint32_t workers;
  char boot[40];
};

Result<std::unique_ptr<KeptState>> KeptState::open(const std::string& directory, const KeptShape& shape,
                                                   uint64_t now_ns) {
  static_assert(sizeof(Header) <= kKeptHeaderBytes && std::is_trivially_copyable_v<Header>);
  struct statfs system {};
  if (::statfs(directory.c_str(), &system) != 0) return fail(fmt::format("{}: {}", directory, errno_text()));
  if (system.f_type != TMPFS_MAGIC) return fail(fmt::format("the run directory {} is not on a tmpfs", directory));
  std::unique_ptr<KeptState> kept(new KeptState);
  kept->path_ = directory + "/l4.flows";
  kept->file_.reset(::open(kept->path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  struct stat status {};
  if (!kept->file_ || ::fstat(kept->file_.get(), &status) != 0) {
    return fail(fmt::format("{}: {}", kept->path_, errno_text()));
  }
  if (!S_ISREG(status.st_mode) || status.st_uid != ::geteuid()) {
    return fail(fmt::format("{} is not a file of this user", kept->path_));
  }
  if (!lock_soon(kept->file_.get())) return fail(fmt::format("{} is held by another process", kept->path_));
  if (::fstat(kept->file_.get(), &status) != 0) return fail(fmt::format("{}: {}", kept->path_, errno_text()));
  kept->table_bytes_ = bytes_of_table(shape.flows);
  kept->why_new_ = kept->why_not(shape, now_ns, static_cast<uint64_t>(status.st_size));
  if (kept->inherited()) kept->why_new_ = kept->read_ids();
  if (!kept->inherited()) {
    if (Result<void> made = kept->make(shape, now_ns); !made) return made.error();
  }
  return kept;
}

Result<void> KeptState::begin_anew(const KeptShape& shape, uint64_t now_ns, std::string why) {
  why_new_ = std::move(why);
  return make(shape, now_ns);
}

KeptState::~KeptState() {
  if (memory_ != nullptr) ::munmap(memory_, mapped_bytes_);
}

// Maps the file at an address that is a multiple of the huge page size, so that the kernel can use huge pages.
Result<void> KeptState::map(uint64_t bytes) {
  void* room = ::mmap(nullptr, bytes + kHugePageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return fail(fmt::format("{}: {}", path_, errno_text()));
  auto* const begin = static_cast<uint8_t*>(room);
  uint8_t* const at = begin + (kHugePageBytes - reinterpret_cast<uintptr_t>(begin) % kHugePageBytes) % kHugePageBytes;
  if (at > begin) ::munmap(begin, static_cast<size_t>(at - begin));
  if (const auto after = static_cast<size_t>(begin + kHugePageBytes - at); after > 0) ::munmap(at + bytes, after);
  if (::mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file_.get(), 0) == MAP_FAILED) {
    ::munmap(at, bytes);
    return fail(fmt::format("{}: {}", path_, errno_text()));
  }
  memory_ = at;
  mapped_bytes_ = bytes;
  header_ = reinterpret_cast<Header*>(memory_);
  return {};
}

// Returns why the previous process's file cannot be used. Otherwise maps it.
std::string KeptState::why_not(const KeptShape& shape, uint64_t now_ns, uint64_t file_bytes) {
  if (file_bytes == 0) return "there are none";
  Header header{};
  if (::pread(file_.get(), &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header))
    return "the file is too short";
  if (std::memcmp(header.magic, kKeptMagic, sizeof kKeptMagic) != 0) return "the file is not one of flows";
  if (header.layout != kLayout)
    return fmt::format("their layout is {}, and this release has {}", header.layout, kLayout);
  if (header.boot[sizeof header.boot - 1] != 0 || boot_id() != header.boot) return "the host was started anew";
  if (header.secret_check != shape.secret_check) return "the site's secret is another one";
  if (header.workers != shape.workers) return fmt::format("workers was {}, and is {}", header.workers, shape.workers);
  if (header.flows != shape.flows) return fmt::format("flows was {}, and is {}", header.flows, shape.flows);
  if (header.ready != 1) return "the process before had not written which backends they name";
  if (header.alive_ns > now_ns || now_ns - header.alive_ns > kMaxFlowTimeoutMs * kNsPerMs) {
    return "they are older than any flow";
  }
  const uint64_t bytes = kTablesOffset + table_bytes_ * shape.workers;
  if (file_bytes != bytes) return fmt::format("the file has {} bytes, and should have {}", file_bytes, bytes);
  if (Result<void> mapped = map(bytes); !mapped) return mapped.error().message;
  same_devices_ = header.devices_check == siphash13(HashKey{}, fmt::format("{}", fmt::join(shape.devices, "\n")));
  return {};
}

Result<void> KeptState::make(const KeptShape& shape, uint64_t now_ns) {
  if (memory_ != nullptr) ::munmap(std::exchange(memory_, nullptr), mapped_bytes_);
  const uint64_t bytes = kTablesOffset + table_bytes_ * shape.workers;
  if (::ftruncate(file_.get(), 0) != 0) return fail(fmt::format("{}: {}", path_, errno_text()));
  if (const int error = ::posix_fallocate(file_.get(), 0, static_cast<off_t>(bytes)); error != 0) {
    if (::ftruncate(file_.get(), 0) != 0) return fail(fmt::format("{}: {}", path_, errno_text()));
    return fail(fmt::format("{}: {} bytes: {}", path_, bytes, std::strerror(error)));
  }
  if (Result<void> mapped = map(bytes); !mapped) return mapped;
  // Only a request. It works on a tmpfs independent of the huge page setting of the tmpfs.
  if (table_bytes_ >= kHugePageBytes) ::madvise(memory_ + kTablesOffset, bytes - kTablesOffset, MADV_COLLAPSE);
  std::memcpy(header_->magic, kKeptMagic, sizeof kKeptMagic);
  header_->layout = kLayout;
  header_->table = random_word();
  header_->flows = shape.flows;
  header_->secret_check = shape.secret_check;
  header_->devices_check = siphash13(HashKey{}, fmt::format("{}", fmt::join(shape.devices, "\n")));
  header_->workers = shape.workers;
  boot_id().copy(header_->boot, sizeof header_->boot - 1);
  same_devices_ = true;
  ids_ = {};
  known_.assign(kMaxBackends, false);
  tell_alive(now_ns);
  return {};
}

void KeptState::tell_alive(uint64_t now_ns) { header_->alive_ns = now_ns; }

KeptMemory KeptState::memory_of(uint32_t worker, uint64_t now_ns) const {
  TIDEGATE_ASSERT(worker < header_->workers, "the file has a table for each worker");
  KeptMemory memory;
  memory.flows = memory_ + kTablesOffset + worker * table_bytes_;
  memory.neighbours = reinterpret_cast<KeptNeighbour*>(memory_ + kKeptHeaderBytes);
  memory.known_ids = &known_;
  memory.inherited = inherited();
  memory.neighbours_inherited = inherited() && same_devices_;
  memory.now_ms = static_cast<uint32_t>(now_ns / kNsPerMs);
  return memory;
}

// The file is replaced as a whole, so a reader never sees half of it.
Result<void> KeptState::write_ids(const KeptIds& ids) {
  nlohmann::json backends = nlohmann::json::array(), pools = nlohmann::json::array();
  for (const auto& [key, id] : ids.backends) backends.push_back({key.first, key.second, index_of(id)});
  for (const auto& [pool, tunnel] : ids.pools) {
    pools.push_back({pool, static_cast<int>(tunnel.mode), tunnel.vni, tunnel.port});
  }
  const nlohmann::json document = {{"layout", kLayout},
                                   {"table", header_->table},
                                   {"longest_timeout_ms", ids.longest_timeout_ms},
                                   {"backends", std::move(backends)},
                                   {"pools", std::move(pools)}};
  const std::string fresh = ids_path() + ".new";
  header_->ready = 0;
  {
    std::ofstream out(fresh, std::ios::binary | std::ios::trunc);
    out << document.dump();
    out.close();
    if (!out) return fail(fmt::format("{}: cannot be written", fresh));
  }
  if (::rename(fresh.c_str(), ids_path().c_str()) != 0) return fail(fmt::format("{}: {}", ids_path(), errno_text()));
  header_->ready = 1;
  return {};
}

// Returns why the names of the backends cannot be used.
std::string KeptState::read_ids() {
  std::error_code missing;
  const uint64_t bytes = std::filesystem::file_size(ids_path(), missing);
  if (missing) return fmt::format("{}: {}", ids_path(), missing.message());
  if (bytes > kMostKeptIdsBytes) return fmt::format("{} is too long", ids_path());
  std::ifstream in(ids_path(), std::ios::binary);
  const nlohmann::json document = nlohmann::json::parse(in, nullptr, false);
  known_.assign(kMaxBackends, false);
  ids_ = {};
  std::set<BackendKey> keys;
  try {
    if (document.at("layout").get<uint32_t>() != kLayout || document.at("table").get<uint64_t>() != header_->table) {
      return fmt::format("{} belongs to other tables", ids_path());
    }
    ids_.longest_timeout_ms = document.at("longest_timeout_ms").get<uint64_t>();
    for (const nlohmann::json& backend : document.at("backends")) {
      const auto id = backend.at(2).get<uint64_t>();
      const BackendKey key = {backend.at(0).get<std::string>(), backend.at(1).get<std::string>()};
      if (id >= kMaxBackends || known_[id] || !keys.insert(key).second) {
        return fmt::format("{} names an id or a backend wrongly", ids_path());
      }
      known_[id] = true;
      ids_.backends.emplace_back(key, BackendId(static_cast<uint16_t>(id)));
    }
    for (const nlohmann::json& pool : document.at("pools")) {
      const auto mode = pool.at(1).get<uint64_t>();
      if (mode > static_cast<uint64_t>(Forwarding::vxlan)) return fmt::format("{} names an unknown mode", ids_path());
      ids_.pools[pool.at(0).get<std::string>()] = {static_cast<Forwarding>(mode), pool.at(2).get<uint32_t>(),
                                                   pool.at(3).get<uint16_t>()};
    }
  } catch (const nlohmann::json::exception&) {
    return fmt::format("{} cannot be read", ids_path());
  }
  return {};
}

}  // namespace tidegate::l4
