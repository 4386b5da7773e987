// SPDX-License-Identifier: Apache-2.0
#include "conf/mmdb.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/fd.h"

namespace tidegate {
namespace {

// The value at a path of keys and indexes; nothing if the record does not have it.
template <size_t kSteps>
std::optional<MMDB_entry_data_s> value_at(MMDB_entry_s entry, const std::array<const char*, kSteps>& keys) {
  std::array<const char*, kSteps + 1> path{};
  std::copy(keys.begin(), keys.end(), path.begin());
  MMDB_entry_data_s data{};
  if (MMDB_aget_value(&entry, &data, path.data()) != MMDB_SUCCESS || !data.has_data) return std::nullopt;
  return data;
}

std::optional<double> number(MMDB_entry_s entry, const char* key) {
  const auto data = value_at(entry, std::array{"location", key});
  if (!data) return std::nullopt;
  if (data->type == MMDB_DATA_TYPE_DOUBLE) return data->double_value;
  if (data->type == MMDB_DATA_TYPE_FLOAT) return static_cast<double>(data->float_value);
  return std::nullopt;
}

template <size_t kSteps>
std::string text_at(MMDB_entry_s entry, const std::array<const char*, kSteps>& keys) {
  const auto data = value_at(entry, keys);
  if (!data || data->type != MMDB_DATA_TYPE_UTF8_STRING) return {};
  return {data->utf8_string, data->data_size};
}

uint32_t integer_at(MMDB_entry_s entry, const char* key) {
  const auto data = value_at(entry, std::array{key});
  if (!data) return 0;
  if (data->type == MMDB_DATA_TYPE_UINT32) return data->uint32;
  return data->type == MMDB_DATA_TYPE_UINT16 ? data->uint16 : 0;
}

// The file's content as a file in memory.
Result<UniqueFd> copy_to_memory(const std::string& path) {
  const auto failed = [&path] { return fail(fmt::format("geo database {}: {}", path, std::strerror(errno))); };
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat about {};
  if (!file || ::fstat(file.get(), &about) != 0) return failed();
  UniqueFd memory(::memfd_create("tidegate-geo", MFD_CLOEXEC));
  if (!memory) return failed();
  for (off_t at = 0; at < about.st_size;) {
    const ssize_t copied = ::sendfile(memory.get(), file.get(), &at, static_cast<size_t>(about.st_size - at));
    if (copied < 0 && errno != EINTR) return failed();
    if (copied == 0) break;  // it became shorter meanwhile: opening it finds what is missing
  }
  return memory;
}

}  // namespace

std::vector<std::string> mmdb_paths(const Geo& geo) {
  std::vector<std::string> paths;
  if (!geo.mmdb.empty()) paths.push_back(geo.mmdb);
  paths.insert(paths.end(), geo.other_mmdbs.begin(), geo.other_mmdbs.end());
  return paths;
}

std::string mmdb_stamp(const Geo& geo) {
  std::string stamp;
  for (const std::string& path : mmdb_paths(geo)) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
      stamp += path + " is not there\n";
      continue;
    }
    stamp += fmt::format("{} {} {} {} {}.{}\n", path, status.st_dev, status.st_ino, status.st_size,
                         status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
  }
  return stamp;
}

// libmaxminddb maps the file. If somebody overwrites a mapped file in place, the process ends by SIGBUS. So it
// maps a private copy.
Result<std::shared_ptr<const Mmdb>> Mmdb::open(const std::string& path) {
  const Result<UniqueFd> memory = copy_to_memory(path);
  if (!memory) return memory.error();
  std::shared_ptr<Mmdb> mmdb(new Mmdb());
  mmdb->path_ = path;
  const std::string copy = fmt::format("/proc/self/fd/{}", memory->get());
  const int status = MMDB_open(copy.c_str(), MMDB_MODE_MMAP, &mmdb->db_);
  if (status != MMDB_SUCCESS) return fail(fmt::format("geo database {}: {}", path, MMDB_strerror(status)));
  mmdb->opened_ = true;
  return std::shared_ptr<const Mmdb>(std::move(mmdb));
}

Mmdb::~Mmdb() {
  if (opened_) MMDB_close(&db_);
}

Mmdb::Cursor Mmdb::root(IpAddress::Family family) const {
  if (family == IpAddress::Family::v6) {
    return db_.metadata.ip_version == 6 ? Cursor{Cursor::Kind::node, 0} : Cursor{};
  }
  if (db_.metadata.ip_version == 4) return {Cursor::Kind::node, 0};
  const uint32_t node = db_.ipv4_start_node.node_value;
  // A value past the nodes means that all of IPv4 has no record or the same record: the database has no IPv4.
  return node < db_.metadata.node_count ? Cursor{Cursor::Kind::node, node} : Cursor{};
}

Result<Mmdb::Cursor> Mmdb::child(IpAddress::Family family, uint32_t node, bool right) const {
  MMDB_search_node_s search{};
  const int status = MMDB_read_node(&db_, node, &search);
  if (status != MMDB_SUCCESS) return fail(fmt::format("geo database {}: {}", path_, MMDB_strerror(status)));
  const uint8_t type = right ? search.right_record_type : search.left_record_type;
  const uint64_t record = right ? search.right_record : search.left_record;
  switch (type) {
    case MMDB_RECORD_TYPE_SEARCH_NODE:
      if (family == IpAddress::Family::v6 && record == db_.ipv4_start_node.node_value) return Cursor{};
      return Cursor{Cursor::Kind::node, static_cast<uint32_t>(record)};
    case MMDB_RECORD_TYPE_EMPTY:
      return Cursor{};
    case MMDB_RECORD_TYPE_DATA:
      return Cursor{Cursor::Kind::data, right ? search.right_record_entry.offset : search.left_record_entry.offset};
    default:
      return fail(fmt::format("geo database {}: the search tree is corrupt", path_));
  }
}

std::optional<Location> Mmdb::location(uint32_t data_offset) const {
  const MMDB_entry_s entry{&db_, data_offset};
  const auto latitude = number(entry, "latitude");
  const auto longitude = number(entry, "longitude");
  if (!latitude || !longitude || !(std::abs(*latitude) <= 90) || !(std::abs(*longitude) <= 180)) return std::nullopt;
  return Location{*latitude, *longitude};
}

Mmdb::Facts Mmdb::facts(uint32_t data_offset) const {
  const MMDB_entry_s entry{&db_, data_offset};
  Facts facts;
  facts.continent = text_at(entry, std::array{"continent", "code"});
  facts.country = text_at(entry, std::array{"country", "iso_code"});
  const std::string subdivision = text_at(entry, std::array{"subdivisions", "0", "iso_code"});
  if (!facts.country.empty() && !subdivision.empty()) facts.region = facts.country + "-" + subdivision;
  facts.asn = integer_at(entry, "autonomous_system_number");
  return facts;
}

std::optional<uint32_t> Mmdb::record_of(const IpAddress& address) const {
  Cursor at = root(address.family);
  for (size_t bit = 0; at.kind == Cursor::Kind::node && bit < address.size() * 8; ++bit) {
    const auto next = child(address.family, at.value, (address.bytes[bit / 8] >> (7 - bit % 8) & 1) != 0);
    if (!next) return std::nullopt;
    at = *next;
  }
  if (at.kind != Cursor::Kind::data) return std::nullopt;
  return at.value;
}

std::optional<Location> Mmdb::lookup(const IpAddress& address) const {
  const auto record = record_of(address);
  return record ? location(*record) : std::nullopt;
}

}  // namespace tidegate
