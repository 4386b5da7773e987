// SPDX-License-Identifier: Apache-2.0
// The form: "TGW1", a byte (1: whole), the number of changes, the changes, the number of secrets, the secrets. Numbers
// have 4 bytes, big-endian. A change is the number of its database (a byte), a byte (1: it has a value), key and value.
// A secret is two strings. A string is its length and its bytes.
#include "conf/write_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/assert.h"
#include "core/lmdb.h"

namespace tidegate {

namespace {

constexpr std::string_view kMagic = "TGW1";
constexpr size_t kSecretHashBytes = 32;
// The place in this list is the number in the form, so the list only grows.
constexpr std::array<std::string_view, 15> kDbNames = {"sys",    "version",  "entry",  "object", "secret",
                                                       "refs",   "admin",    "health", "purge",  "audit",
                                                       "answer", "answered", "load",   "issued", "name"};

void put_number(std::string& out, size_t number) {
  TIDEGATE_ASSERT(number <= UINT32_MAX, "a write set is far below 4 GB");
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(number >> shift & 0xff));
}

void put_string(std::string& out, std::string_view bytes) {
  put_number(out, bytes.size());
  out.append(bytes);
}

// Decodes the form. After the first fault everything else is empty.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  bool sound() const { return sound_; }
  size_t left() const { return left_.size(); }

  std::string_view take(size_t count) {
    if (!sound_ || count > left_.size()) {
      sound_ = false;
      return {};
    }
    const std::string_view taken = left_.substr(0, count);
    left_.remove_prefix(count);
    return taken;
  }
  uint8_t byte() {
    const std::string_view taken = take(1);
    return taken.empty() ? uint8_t{0} : static_cast<uint8_t>(taken[0]);
  }
  // 0 or 1, nothing else.
  bool flag() {
    const uint8_t value = byte();
    sound_ = sound_ && value <= 1;
    return value == 1;
  }
  size_t number() {
    size_t number = 0;
    for (const char each : take(4)) number = number << 8 | static_cast<uint8_t>(each);
    return number;
  }
  std::string_view string() { return take(number()); }

 private:
  std::string_view left_;
  bool sound_ = true;
};

}  // namespace

std::string encode_write_set(const WriteSet& set) {
  std::string out(kMagic);
  out.push_back(set.whole ? 1 : 0);
  put_number(out, set.changes.size());
  for (const WriteSet::Change& change : set.changes) {
    const auto db = std::find(kDbNames.begin(), kDbNames.end(), change.db);
    TIDEGATE_ASSERT(db != kDbNames.end(), "every database of the state has a number");
    out.push_back(static_cast<char>(db - kDbNames.begin()));
    out.push_back(change.value ? 1 : 0);
    put_string(out, change.key);
    if (change.value) put_string(out, *change.value);
  }
  put_number(out, set.secrets.size());
  for (const auto& [raw_hash, bytes] : set.secrets) {
    put_string(out, raw_hash);
    put_string(out, bytes);
  }
  return out;
}

Result<WriteSet> decode_write_set(std::string_view bytes) {
  Reader reader(bytes);
  if (reader.take(kMagic.size()) != kMagic) return fail("it is no write set of this release");
  WriteSet set;
  set.whole = reader.flag();
  const size_t changes = reader.number();
  for (size_t i = 0; i < changes && reader.sound(); ++i) {
    const uint8_t db = reader.byte();
    const bool has_value = reader.flag();
    const std::string_view key = reader.string();
    const std::string_view value = has_value ? reader.string() : std::string_view();
    if (!reader.sound()) break;
    if (db >= kDbNames.size()) return fail(fmt::format("it changes database {}, which this release does not have", db));
    if (key.empty() || key.size() > lmdb::kMaxKeyBytes) return fail(fmt::format("a key has {} bytes", key.size()));
    set.changes.push_back(
        {std::string(kDbNames[db]), std::string(key), has_value ? std::optional<std::string>(value) : std::nullopt});
  }
  const size_t secrets = reader.number();
  for (size_t i = 0; i < secrets && reader.sound(); ++i) {
    const std::string_view raw_hash = reader.string(), secret = reader.string();
    if (!reader.sound()) break;
    if (raw_hash.size() != kSecretHashBytes) return fail("the hash of a private key has not 32 bytes");
    set.secrets.emplace_back(raw_hash, secret);
  }
  if (!reader.sound()) return fail("it is cut off, or damaged");
  if (reader.left() != 0) return fail(fmt::format("{} bytes follow its end", reader.left()));
  return set;
}

}  // namespace tidegate
