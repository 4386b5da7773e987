#include "cache/store.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cache/validation.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/fd.h"
#include "core/lmdb_check.h"
#include "core/lmdb_damage.h"
#include "core/log.h"

namespace tidegate::cache {
namespace {

constexpr std::string_view kFormat = "tidegate-cache 1";
constexpr unsigned kFlags = MDB_NORDAHEAD | MDB_NOMEMINIT | MDB_NOMETASYNC;
constexpr uint64_t kPage = 4096;
constexpr const char* kLoadingMark = "/loading";  // exists from before the file is opened until the index is read
constexpr const char* kInUseMark = "/in-use";     // exists while a process has the environment open

bool exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

void erase(const std::string& path) { ::unlink(path.c_str()); }
void touch(const std::string& path) { const UniqueFd fd(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0640)); }

// A data file may end before its last page where LMDB left the last ones unwritten; else it was cut off, by a full disk
// or a copy, and reading it through the map would end the process. Grown, the former never faults.
Result<void> grow_to_last_page(const lmdb::Env& env, const std::string& directory) {
  MDB_envinfo info{};
  mdb_env_info(env.get(), &info);
  struct stat file {};
  const std::string path = directory + "/data.mdb";
  if (::stat(path.c_str(), &file) != 0) return fail(path + ": " + std::strerror(errno));
  const auto wanted = static_cast<off_t>((info.me_last_pgno + 1) * kPage);
  if (file.st_size >= wanted) return {};
  if (auto sound = lmdb::check(directory); !sound) return sound;
  if (::truncate(path.c_str(), wanted) != 0) return fail(path + ": " + std::strerror(errno));
  return {};
}

HashKeys new_hash_keys() {
  const std::string bytes = random_bytes(32);
  HashKeys keys;
  std::memcpy(&keys.high, bytes.data(), 16);
  std::memcpy(&keys.low, bytes.data() + 16, 16);
  return keys;
}

std::string encode_hash_keys(const HashKeys& keys) {
  return encode_u64s(keys.high.k0, keys.high.k1) + encode_u64s(keys.low.k0, keys.low.k1);
}

std::pair<uint64_t, uint64_t> read_pair(const lmdb::Txn& txn, MDB_dbi db, std::string_view key,
                                        std::pair<uint64_t, uint64_t> otherwise) {
  const auto value = txn.get(db, key);
  return value ? decode_u64s(*value).value_or(otherwise) : otherwise;
}

Result<void> move_aside(const std::string& directory, const std::string& why) {
  const std::string aside = directory + ".damaged-" + std::to_string(realtime_ns());
  if (::rename(directory.c_str(), aside.c_str()) != 0) return fail("rename " + directory + ": " + std::strerror(errno));
  log_warn("cache: {} is damaged ({}); moved to {}, starting empty", directory, why, aside);
  return {};
}

}  // namespace

Store::Store(lmdb::Env env, std::string directory, uint64_t map_bytes)
    : env_(std::move(env)), directory_(std::move(directory)), map_bytes_(map_bytes) {}

Store::~Store() {
  erase(directory_ + kLoadingMark);
  erase(directory_ + kInUseMark);
}

void Store::mark_loaded() { erase(directory_ + kLoadingMark); }

Result<std::unique_ptr<Store>> Store::open(const std::string& directory, uint64_t disk_bytes) {
  const bool died_loading = exists(directory + kLoadingMark);
  // Whoever was killed left a sound file, whoever died of damage did not: worth a look before LMDB dies of it again.
  const Result<void> sound = exists(directory + kInUseMark) ? lmdb::check(directory) : Result<void>();
  if (!sound) {
    if (auto moved = move_aside(directory, sound.error().message); !moved) return moved.error();
  } else if (exists(directory + lmdb::kMark)) {
    if (auto moved = move_aside(directory, "the last process died of it"); !moved) return moved.error();
  } else if (!died_loading) {
    auto store = try_open(directory, disk_bytes);
    if (store || !exists(directory + "/data.mdb")) return store;
    if (auto moved = move_aside(directory, store.error().message); !moved) return moved.error();
  } else if (auto moved = move_aside(directory, "the last start ended while it was being read"); !moved) {
    return moved.error();
  }
  return try_open(directory, disk_bytes);
}

Result<std::unique_ptr<Store>> Store::try_open(const std::string& directory, uint64_t disk_bytes) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return fail("create " + directory + ": " + error.message());
  touch(directory + kLoadingMark);
  touch(directory + kInUseMark);
  lmdb::EnvOptions options;
  options.map_bytes = (disk_bytes + kPage - 1) / kPage * kPage;
  options.max_dbs = 4;
  options.flags = kFlags;
  auto env = lmdb::Env::open(directory, options);
  if (!env) {
    erase(directory + kLoadingMark);
    erase(directory + kInUseMark);
    return env.error();
  }
  MDB_envinfo info{};
  mdb_env_info(env->get(), &info);  // an environment that was once larger keeps its size
  auto store = std::unique_ptr<Store>(new Store(std::move(*env), directory, info.me_mapsize));
  if (auto grown = grow_to_last_page(store->env_, directory); !grown) return grown.error();
  if (auto prepared = store->prepare(); !prepared) return prepared.error();
  if (auto read = store->read_header(); !read) return read.error();
  return store;
}

Result<void> Store::prepare() {
  auto txn = lmdb::Txn::begin(env_, lmdb::Access::write);
  if (!txn) return txn.error();
  struct Db {
    const char* name;
    MDB_dbi* handle;
  };
  for (const Db& db : {Db{"meta", &meta_}, Db{"chunk", &chunk_}, Db{"tag", &tag_}, Db{"sys", &sys_}}) {
    auto opened = txn->open_db(db.name, MDB_CREATE);
    if (!opened) return opened.error();
    *db.handle = *opened;
  }
  if (!txn->get(sys_, "format")) {
    if (auto put = txn->put(sys_, "format", kFormat); !put) return put;
    if (auto put = txn->put(sys_, "hash_keys", encode_hash_keys(new_hash_keys())); !put) return put;
  }
  return txn->commit();
}

Result<void> Store::read_header() {
  auto txn = lmdb::Txn::begin(env_, lmdb::Access::read);
  if (!txn) return txn.error();
  const auto keys = txn->get(sys_, "hash_keys");
  if (txn->get(sys_, "format") != kFormat || !keys || keys->size() != 32) return fail("foreign format");
  const auto high = decode_u64s(keys->substr(0, 16)), low = decode_u64s(keys->substr(16));
  header_.keys = {{high->first, high->second}, {low->first, low->second}};
  std::tie(header_.generation, header_.purge.sequence) = read_pair(*txn, sys_, "progress", {1, 0});
  const auto [sequence, at_ns] = read_pair(*txn, sys_, "purged_at", {0, 0});
  if (sequence == header_.purge.sequence) header_.purge.at_ns = at_ns;
  std::tie(header_.all_hard, header_.all_soft) = read_pair(*txn, sys_, "all", {0, 0});
  lmdb::Cursor cursor(*txn, tag_);
  for (bool more = cursor.first(); more; more = cursor.next()) {
    const auto epochs = decode_u64s(cursor.value());
    if (cursor.key().size() == 8 && epochs) header_.tags.emplace_back(lmdb::be64(cursor.key()), *epochs);
  }
  return {};
}

std::optional<Meta> Store::read_meta(const lmdb::Txn& txn, const KeyHash& key, uint64_t variant, bool& damaged) const {
  damaged = false;
  const auto record = txn.get(meta_, meta_key(key, variant));
  if (!record) return std::nullopt;
  damaged = true;
  auto meta = decode_meta(*record);
  if (!meta) return std::nullopt;
  if (meta->head_apart) {
    const auto apart = txn.get(chunk_, chunk_key(meta->disk_generation, kHeadChunk));
    const auto text = apart ? decode_chunk(*apart) : std::nullopt;
    if (!text) return std::nullopt;
    meta->head->field_text = *text;
    if (!index_head(*meta->head, meta->received_ms)) return std::nullopt;
  }
  damaged = false;
  return meta;
}

std::optional<Slice> Store::read_chunk(const lmdb::Txn& txn, uint64_t generation, uint32_t index) const {
  const auto value = txn.get(chunk_, chunk_key(generation, index));
  return value ? copy_chunk(*value) : std::nullopt;
}

std::optional<Slice> Store::copy_chunk(std::string_view value) {
  const auto bytes = decode_chunk(value);
  if (!bytes) return std::nullopt;
  const auto copy = std::make_shared_for_overwrite<char[]>(bytes->size());
  std::memcpy(copy.get(), bytes->data(), bytes->size());
  return Slice{copy, {copy.get(), bytes->size()}};
}

}  // namespace tidegate::cache
