// SPDX-License-Identifier: Apache-2.0
#include "cache/disk/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "cache/limits.h"
#include "cache/policy/validation.h"
#include "core/crypto.h"
#include "core/lmdb_check.h"
#include "core/lmdb_damage.h"
#include "core/log.h"

namespace tidegate::cache {
namespace {

constexpr std::string_view kFormat = kStoreFormat;
constexpr unsigned kEnvFlags = MDB_NORDAHEAD | MDB_NOMEMINIT | MDB_NOMETASYNC;
constexpr const char* kDataFile = "/data.mdb";
constexpr const char* kLockFile = "/lock.mdb";
// The mark has one byte for each start in a row that did not finish reading the index. It is written before the file is
// opened.
constexpr const char* kLoadingMark = "/loading";
constexpr const char* kInUseMark = "/in-use";    // exists while a process has the environment open
constexpr const char* kClosedNote = "/closed";   // the data file's time and size when a process let it go in order
constexpr const char* kSetAside = "/set-aside";  // holds an environment that could not be used, until the next start
constexpr size_t kMaxHeaderBytes = 128;          // of one value of the sys and tag databases
constexpr off_t kLockFileBytes = 16'384;         // LMDB needs less for 126 readers
// If a start was killed while it read the file, the file is not necessarily bad. Each later start checks the whole file
// first. After this many such starts in a row, the file is given up.
constexpr uint64_t kMaxDeathsWhileLoading = 10;
constexpr int kLockTries = 50;  // one second in total, for a process that is ending
constexpr auto kLockPoll = std::chrono::milliseconds(20);

bool exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

void erase(const std::string& path) { ::unlink(path.c_str()); }
void touch(const std::string& path) { const UniqueFd fd(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0640)); }
void add_byte(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0640));
  if (fd) (void)!::write(fd.get(), ".", 1);
}
uint64_t file_bytes(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string identity_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return "none";
  return fmt::format("{}.{:09} {}\n", info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_size);
}

// Only one process at a time may use a directory: two processes would give the same generation to different bodies. The
// kernel releases the lock when the process ends, also after a crash.
Result<UniqueFd> lock_directory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return fail("create " + directory + ": " + error.message());
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail("open " + directory + ": " + std::strerror(errno));
  for (int tries = 0; ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (errno != EWOULDBLOCK) return fail("lock " + directory + ": " + std::strerror(errno));
    if (tries == kLockTries) return fail(directory + " is used by another process");
    std::this_thread::sleep_for(kLockPoll);
  }
  return fd;
}

// True if the descriptor still belongs to the file at this path. The configuration may name another directory now, or
// somebody may have replaced the file.
bool is_of(int fd, const std::string& path) {
  struct stat open {
  }, named{};
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

// A sound data file may end before its last page, because LMDB left the last pages unwritten. The file is grown here,
// so reads of these pages do not fault. Only a check can tell whether the file was cut off instead. Returns true if it
// was too short.
Result<bool> grow_to_last_page(const lmdb::Env& env, const std::string& directory) {
  const auto info = env.info();
  const std::string path = directory + kDataFile;
  struct stat file {};
  if (!info || ::stat(path.c_str(), &file) != 0) return fail(path + ": " + std::strerror(errno));
  const auto wanted = static_cast<off_t>((info->me_last_pgno + 1) * kPageBytes);
  if (file.st_size >= wanted) return false;
  if (::truncate(path.c_str(), wanted) != 0) return fail(path + ": " + std::strerror(errno));
  return true;
}

// LMDB maps its lock file and extends it without allocating blocks. On a full file system its first touch would be a
// SIGBUS.
Result<void> reserve_lock_file(const std::string& directory) {
  const std::string path = directory + kLockFile;
  const UniqueFd fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0640));
  if (!fd) return fail(path + ": " + std::strerror(errno));
  if (const int error = ::posix_fallocate(fd.get(), 0, kLockFileBytes); error != 0)
    return fail(path + ": " + std::strerror(error));
  return {};
}

HashKeys new_hash_keys() {
  const std::string bytes = random_bytes(32);
  HashKeys keys;
  std::memcpy(&keys.high, bytes.data(), 16);
  std::memcpy(&keys.low, bytes.data() + 16, 16);
  return keys;
}

uint64_t seal_of(const HashKeys& keys, uint64_t generation, const PurgePosition& purge) {
  const std::string numbers = encode_u64s(generation, purge.sequence) + encode_u64s(purge.at_ns, 0);
  return siphash13(keys.high, numbers);
}

std::string encode_hash_keys(const HashKeys& keys) {
  return encode_u64s(keys.high.k0, keys.high.k1) + encode_u64s(keys.low.k0, keys.low.k1);
}

std::pair<uint64_t, uint64_t> read_pair(const lmdb::Txn& txn, MDB_dbi db, std::string_view key,
                                        std::pair<uint64_t, uint64_t> otherwise) {
  const auto value = txn.get_copy(db, key, kMaxHeaderBytes);
  return value ? decode_u64s(*value).value_or(otherwise) : otherwise;
}

// Makes room for a new environment. One copy of the old one is kept for inspection and replaces an older copy. No copy
// is kept if the file system has no room for it in addition to the disk tier.
Result<void> set_aside(const std::string& directory, uint64_t disk_bytes, const std::string& why) {
  const std::string aside = directory + kSetAside;
  std::error_code error;
  std::filesystem::remove_all(aside, error);
  struct statvfs system {};
  const bool has_room = ::statvfs(directory.c_str(), &system) == 0 &&
                        uint64_t{system.f_bavail} * system.f_frsize >= disk_bytes && ::mkdir(aside.c_str(), 0750) == 0;
  const std::string data = directory + kDataFile;
  const bool moved = has_room ? ::rename(data.c_str(), (aside + kDataFile).c_str()) == 0 : ::unlink(data.c_str()) == 0;
  if (!moved && errno != ENOENT) return fail("cannot set " + data + " aside: " + std::strerror(errno));
  for (const char* name : {kLockFile, kLoadingMark, kInUseMark, kClosedNote, lmdb::kMark}) erase(directory + name);
  if (auto reserved = reserve_lock_file(directory); !reserved) return reserved;
  log_warn("cache: {} cannot be used ({}); {}, starting empty", data, why,
           has_room ? "set aside in " + aside + " until the next start" : "erased, since there is no room for a copy");
  return {};
}

}  // namespace

Store::Store(lmdb::Env env, std::string directory, uint64_t disk_bytes)
    : env_(std::move(env)), directory_(std::move(directory)), disk_bytes_(disk_bytes), map_bytes_(disk_bytes) {}

// Called when nobody writes any more.
void Store::note_closed() const { std::ofstream(directory_ + kClosedNote) << identity_of(directory_ + kDataFile); }

Store::~Store() {
  if (let_go_) return;
  note_closed();
  erase(directory_ + kLoadingMark);
  erase(directory_ + kInUseMark);
}

void Store::distrust() const {
  if (!let_go_) touch(directory_ + lmdb::kMark);
}

UniqueFd Store::let_go() {
  if (!let_go_) {
    note_closed();
    erase(directory_ + kLoadingMark);
    erase(directory_ + kInUseMark);
  }
  let_go_ = true;
  return UniqueFd(::fcntl(lock_.get(), F_DUPFD_CLOEXEC, 0));
}

Result<uint64_t> Store::take_back() {
  int fd = -1;
  if (mdb_env_get_fd(env_.get(), &fd) != 0 || !is_of(fd, directory_ + kDataFile)) {
    return fail("the process that was to take it over put another file in its place");
  }
  mdb_reader_check(env_.get(), nullptr);  // a process that was killed may have left a snapshot
  auto txn = lmdb::Txn::begin(env_, lmdb::Access::read);
  if (!txn) return txn.error();
  const uint64_t generation = read_pair(*txn, sys_, "progress", {header_.generation, 0}).first;
  if (auto sound = txn->sound(); !sound) return sound.error();
  let_go_ = false;
  touch(directory_ + kInUseMark);
  return generation;
}

void Store::mark_loaded() { erase(directory_ + kLoadingMark); }

Result<std::unique_ptr<Store>> Store::open(const std::string& directory, uint64_t disk_bytes, UniqueFd inherited) {
  Result<UniqueFd> lock =
      inherited && is_of(inherited.get(), directory) ? std::move(inherited) : lock_directory(directory);
  if (!lock) return lock.error();
  auto store = open_locked(directory, disk_bytes);
  if (store) (*store)->lock_ = *std::move(lock);
  return store;
}

Result<std::unique_ptr<Store>> Store::open_locked(const std::string& directory, uint64_t disk_bytes) {
  if (auto reserved = reserve_lock_file(directory); !reserved) return reserved.error();
  const std::string aside = directory + kSetAside;
  const bool had_copy = exists(aside);
  std::string trouble;
  if (exists(directory + lmdb::kMark)) trouble = "the last process died of it";
  if (trouble.empty() && file_bytes(directory + kLoadingMark) >= kMaxDeathsWhileLoading)
    trouble = "the last starts ended while it was being read";
  if (trouble.empty()) {
    auto store = try_open(directory, disk_bytes);
    if (store && had_copy) {
      std::error_code error;
      std::filesystem::remove_all(aside, error);
    }
    if (store || !exists(directory + kDataFile)) return store;
    trouble = store.error().message;
  }
  if (auto done = set_aside(directory, disk_bytes, trouble); !done) return done.error();
  return try_open(directory, disk_bytes);
}

Result<std::unique_ptr<Store>> Store::try_open(const std::string& directory, uint64_t disk_bytes) {
  // A process that was killed leaves a sound file; one that died of damage does not.
  // If somebody else changed the file since, it is not trusted either.
  const bool was_in_use = exists(directory + kInUseMark);
  const std::string closed = text_of(directory + kClosedNote);
  const bool is_changed = !closed.empty() && closed != identity_of(directory + kDataFile);
  add_byte(directory + kLoadingMark);
  touch(directory + kInUseMark);
  auto env = open_environment(directory, disk_bytes);
  if (!env) {
    erase(directory + kLoadingMark);
    erase(directory + kInUseMark);
    return env.error();
  }
  auto store = std::unique_ptr<Store>(new Store(std::move(*env), directory, disk_bytes));
  const auto grown = grow_to_last_page(store->env_, directory);
  if (!grown) return grown.error();
  if (auto prepared = store->prepare(); !prepared) return prepared.error();
  const auto sealed = store->read_header();
  if (!sealed) return sealed.error();
  store->must_check_ = was_in_use || is_changed || *grown;
  if (store->must_check_ && !*sealed) {  // from an older program: nothing says that its header is sound
    if (auto sound = store->check(); !sound) return sound.error();
  }
  return store;
}

Result<lmdb::Env> Store::open_environment(const std::string& directory, uint64_t disk_bytes) {
  lmdb::EnvOptions options;
  options.map_bytes = (disk_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  options.max_dbs = 4;
  options.flags = kEnvFlags;
  options.expendable = true;
  return lmdb::Env::open(directory, options);
}

Result<void> Store::check() {
  auto sound = lmdb::check(directory_);
  if (sound) must_check_ = false;
  return sound;
}

Result<void> Store::start_anew(const std::string& why, uint64_t generation, const PurgePosition& purge) {
  auto done = set_aside(directory_, disk_bytes_, why);
  if (done) {
    add_byte(directory_ + kLoadingMark);
    touch(directory_ + kInUseMark);
    auto env = open_environment(directory_, disk_bytes_);
    if (env) {
      env_ = std::move(*env);
      map_bytes_ = disk_bytes_;
      header_.generation = generation;
      header_.purge = purge;
      header_.tags.clear();
      done = create();
    } else {
      done = env.error();
    }
  }
  must_check_ = false;
  if (!done) env_.abandon();
  return done;
}

// Opens the databases. Writes nothing if they all exist.
Result<void> Store::prepare() {
  const auto info = env_.info();
  if (!info) return fail("its first pages cannot be read");
  map_bytes_ = info->me_mapsize;  // an environment keeps the size that it was made with, if that was larger
  auto txn = lmdb::Txn::begin(env_, lmdb::Access::read);
  if (!txn) return txn.error();
  if (open_databases(*txn, 0) && txn->get(sys_, "format")) return txn->commit();
  if (auto sound = txn->sound(); !sound) return sound;
  if (info->me_last_txnid != 0) return fail("its databases are not there");
  txn->abort();
  header_.keys = new_hash_keys();
  return create();
}

Result<void> Store::create() {
  auto txn = lmdb::Txn::begin(env_, lmdb::Access::write);
  if (!txn) return txn.error();
  if (auto opened = open_databases(*txn, MDB_CREATE); !opened) return opened;
  if (!txn->get(sys_, "format")) {
    if (auto put = txn->put(sys_, "format", kFormat); !put) return put;
    if (auto put = txn->put(sys_, "hash_keys", encode_hash_keys(header_.keys)); !put) return put;
    if (auto put = put_progress(*txn, header_.generation, header_.purge); !put) return put;
  }
  return txn->commit();
}

Result<void> Store::open_databases(lmdb::Txn& txn, unsigned flags) {
  struct Db {
    const char* name;
    MDB_dbi* handle;
  };
  for (const Db& db : {Db{"meta", &meta_}, Db{"chunk", &chunk_}, Db{"tag", &tag_}, Db{"sys", &sys_}}) {
    auto opened = txn.open_db(db.name, flags);
    if (!opened) return opened.error();
    *db.handle = *opened;
  }
  return {};
}

// "seal" contains the progress for which it was written, and its checksum. A program that does not know "seal" leaves
// an old one behind.
Result<void> Store::put_progress(lmdb::Txn& txn, uint64_t generation, const PurgePosition& purge) const {
  if (auto put = txn.put(sys_, "progress", encode_u64s(generation, purge.sequence)); !put) return put;
  if (purge.sequence != 0) {
    if (auto put = txn.put(sys_, "purged_at", encode_u64s(purge.sequence, purge.at_ns)); !put) return put;
  }
  return txn.put(sys_, "seal", encode_u64s(generation, seal_of(header_.keys, generation, purge)));
}

// Returns true if the seal confirms the header that was read.
Result<bool> Store::read_header() {
  auto txn = lmdb::Txn::begin(env_, lmdb::Access::read);
  if (!txn) return txn.error();
  const auto keys = txn->get_copy(sys_, "hash_keys", kMaxHeaderBytes);
  const std::string format = txn->get_copy(sys_, "format", kMaxHeaderBytes).value_or("none");
  if (format != kFormat) return fail(fmt::format("its format is {:.64}, this program's is {}", format, kFormat));
  if (!keys || keys->size() != 32) return fail("it has no hash keys");
  const std::string_view halves = *keys;
  const auto high = decode_u64s(halves.substr(0, 16)), low = decode_u64s(halves.substr(16));
  header_.keys = {{high->first, high->second}, {low->first, low->second}};
  std::tie(header_.generation, header_.purge.sequence) = read_pair(*txn, sys_, "progress", {1, 0});
  const auto [sequence, at_ns] = read_pair(*txn, sys_, "purged_at", {0, 0});
  if (sequence == header_.purge.sequence) header_.purge.at_ns = at_ns;
  const auto [sealed_generation, seal] = read_pair(*txn, sys_, "seal", {0, 0});
  const bool is_sealed = sealed_generation == header_.generation;
  if (is_sealed && seal != seal_of(header_.keys, header_.generation, header_.purge))
    return fail("its header is damaged");
  std::tie(header_.all_hard, header_.all_soft) = read_pair(*txn, sys_, "all", {0, 0});
  bool plausible = header_.all_hard < header_.generation && header_.all_soft < header_.generation;
  lmdb::Cursor cursor(*txn, tag_);
  for (bool more = cursor.first(); more; more = cursor.next()) {
    const auto value = cursor.value_copy(kMaxHeaderBytes);
    const auto epochs = value ? decode_u64s(*value) : std::nullopt;
    if (cursor.key().size() != 8 || !epochs) continue;
    plausible = plausible && epochs->first < header_.generation && epochs->second < header_.generation;
    header_.tags.emplace_back(lmdb::be64(cursor.key()), *epochs);
  }
  if (auto sound = txn->sound(); !sound) return sound.error();
  if (!plausible) return fail("a purge in it is of the future");
  return is_sealed;
}

uint64_t Store::room_bytes() const {
  struct statvfs system {};
  if (::statvfs(directory_.c_str(), &system) != 0) return map_bytes_;
  const uint64_t free = uint64_t{system.f_bavail} * system.f_frsize;
  const uint64_t reserve = std::min(kDiskReserveBytes, uint64_t{system.f_blocks} * system.f_frsize / 16);
  return std::min(map_bytes_, file_bytes(directory_ + kDataFile) + free - std::min(free, reserve));
}

std::optional<Meta> Store::read_meta(const lmdb::Txn& txn, const KeyHash& key, uint64_t variant, bool& damaged) const {
  damaged = false;
  const std::string name = meta_key(key, variant);
  const auto record = txn.get(meta_, name);
  if (!record) return std::nullopt;
  damaged = true;
  auto meta = copy_meta(txn, name, *record);
  if (!meta) return std::nullopt;
  if (meta->head_apart) {
    const auto apart =
        txn.get_copy(chunk_, chunk_key(meta->disk_generation, kHeadChunk), kMaxMetaBytes + sizeof(uint32_t));
    const auto text = apart ? decode_chunk({key, meta->disk_generation, kHeadChunk}, *apart) : std::nullopt;
    if (!text || !attach_head(*meta, *text)) return std::nullopt;
  }
  damaged = false;
  return meta;
}

std::optional<Meta> Store::copy_meta(const lmdb::Txn& txn, std::string_view name, std::string_view record) {
  thread_local std::string copy;
  if (record.size() > kMaxMetaBytes) return std::nullopt;
  copy.resize(record.size());
  if (!txn.copy(record, copy.data())) return std::nullopt;
  return decode_meta(name, copy);
}

std::optional<Slice> Store::read_chunk(const lmdb::Txn& txn, const ChunkName& name) const {
  const auto value = txn.get(chunk_, chunk_key(name.generation, name.index));
  return value ? copy_chunk(txn, name, *value) : std::nullopt;
}

std::optional<Slice> Store::copy_chunk(const lmdb::Txn& txn, const ChunkName& name, std::string_view value) {
  if (value.size() > kChunkValueBytes) return std::nullopt;
  const auto copy = std::make_shared_for_overwrite<char[]>(value.size());
  if (!txn.copy(value, copy.get())) return std::nullopt;
  const auto bytes = decode_chunk(name, {copy.get(), value.size()});
  if (!bytes) return std::nullopt;
  return Slice{copy, *bytes};
}

}  // namespace tidegate::cache
