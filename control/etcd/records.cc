// SPDX-License-Identifier: Apache-2.0
#include "control/etcd/records.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "control/api/json_bounds.h"
#include "core/aes.h"
#include "core/crypto.h"

namespace tidegate::etcd {

namespace {

using nlohmann::json;

constexpr size_t kSequenceDigits = 16, kPieceDigits = 6;
constexpr size_t kDigestDigits = 64;

json position_json(const JournalPosition& position) {
  return {{"sequence", position.sequence}, {"digest", position.digest}};
}

JournalPosition position_in(const json& object) {
  return {number_member(object, "sequence"), string_member(object, "digest")};
}

bool is_digest(std::string_view text) {
  return text.size() == kDigestDigits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::optional<uint64_t> parse_hex(std::string_view digits) {
  uint64_t number = 0;
  for (const char digit : digits) {
    const bool is_letter = digit >= 'a' && digit <= 'f';
    if (!is_letter && (digit < '0' || digit > '9')) return std::nullopt;
    number = number << 4 | static_cast<uint64_t>(is_letter ? digit - 'a' + 10 : digit - '0');
  }
  return number;
}

}  // namespace

std::string encode(const Head& head) {
  json object = position_json(head.position);
  object["first"] = head.first;
  object["bytes"] = head.bytes;
  object["checkpoint"] = position_json(head.checkpoint.position);
  object["checkpoint"]["bytes"] = head.checkpoint.bytes;
  return dump(object);
}

Result<Head> parse_head(std::string_view text) {
  const Result<json> object = parse_json(text);
  if (!object || !object->is_object()) return fail("the head in etcd is not of this release");
  Head head;
  head.position = position_in(*object);
  head.first = number_member(*object, "first");
  head.bytes = number_member(*object, "bytes");
  const json checkpoint = object->value("checkpoint", json::object());
  head.checkpoint = {position_in(checkpoint), number_member(checkpoint, "bytes")};
  const bool sound = head.position.sequence != 0 && is_digest(head.position.digest) &&
                     is_digest(head.checkpoint.position.digest) && head.checkpoint.position.sequence != 0 &&
                     head.checkpoint.position.sequence <= head.position.sequence && head.first != 0 &&
                     head.first <= head.checkpoint.position.sequence + 1;
  if (!sound) return fail("the head in etcd is not of this release");
  return head;
}

std::string encode(const LeaderRecord& leader) { return dump(json{{"node", leader.node}, {"api", leader.api}}); }

LeaderRecord parse_leader(std::string_view text) {
  const Result<json> object = parse_json(text);
  if (!object || !object->is_object()) return {};
  return {string_member(*object, "node"), string_member(*object, "api")};
}

std::string Keys::journal(uint64_t sequence) const { return fmt::format("{}journal/{:016x}/", prefix_, sequence); }
std::string Keys::journal_end() const { return prefix_ + "journal0"; }
std::string Keys::checkpoint(uint64_t sequence) const {
  return fmt::format("{}checkpoint/{:016x}/", prefix_, sequence);
}

std::string Keys::checkpoint_end() const { return prefix_ + "checkpoint0"; }

std::string Keys::piece(std::string_view of, uint64_t index, uint64_t count) {
  return fmt::format("{}{:06x}-{:06x}", of, index, count);
}

std::optional<Keys::Piece> Keys::parse_piece(std::string_view key) const {
  if (!key.starts_with(prefix_)) return std::nullopt;
  key.remove_prefix(prefix_.size());
  const size_t slash = key.find('/');
  if (slash == std::string_view::npos || (key.substr(0, slash) != "journal" && key.substr(0, slash) != "checkpoint")) {
    return std::nullopt;
  }
  key.remove_prefix(slash + 1);
  if (key.size() != kSequenceDigits + 1 + kPieceDigits + 1 + kPieceDigits || key[kSequenceDigits] != '/' ||
      key[kSequenceDigits + 1 + kPieceDigits] != '-') {
    return std::nullopt;
  }
  const auto sequence = parse_hex(key.substr(0, kSequenceDigits));
  const auto index = parse_hex(key.substr(kSequenceDigits + 1, kPieceDigits));
  const auto count = parse_hex(key.substr(key.size() - kPieceDigits));
  if (!sequence || !index || !count || *index >= *count) return std::nullopt;
  return Piece{*sequence, *index, *count};
}

std::string seal_key(std::string_view site_secret) {
  return hkdf_sha256(site_secret, "tidegate state in etcd", kAes128KeyBytes);
}

std::string seal_write(std::string_view key, std::string_view previous, const WriteSet& set, std::string& digest) {
  std::string plain(previous);
  plain.resize(kDigestDigits, '0');
  plain += encode_write_set(set);
  digest = sha256_hex(plain);
  return aes128_seal(AesMode::gcm, key, plain);
}

Result<Write> open_write(std::string_view key, std::string_view sealed, std::string& digest) {
  const std::optional<std::string> plain = aes128_open(AesMode::gcm, key, sealed);
  if (!plain) return fail("it was sealed with another secret than --secret of this host, or is damaged");
  if (plain->size() < kDigestDigits) return fail("it is cut off");
  digest = sha256_hex(*plain);
  Result<WriteSet> set = decode_write_set(std::string_view(*plain).substr(kDigestDigits));
  if (!set) return set.error();
  return Write{plain->substr(0, kDigestDigits), *std::move(set)};
}

}  // namespace tidegate::etcd
