// SPDX-License-Identifier: Apache-2.0
// Any answers of an etcd, or of somebody in its place: no crash, and values that are read back are the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "control/api/json_bounds.h"
#include "control/etcd/messages.h"
#include "control/etcd/records.h"
#include "core/assert.h"

using namespace tidegate;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const Result<WriteSet> set = decode_write_set(text)) {
    const Result<WriteSet> again = decode_write_set(encode_write_set(*set));
    TIDEGATE_ASSERT(again && again->changes.size() == set->changes.size(), "a write set reads back");
  }
  if (const Result<etcd::Head> head = etcd::parse_head(text)) {
    const Result<etcd::Head> again = etcd::parse_head(etcd::encode(*head));
    TIDEGATE_ASSERT(again && *again == *head, "a head reads back");
  }
  (void)etcd::parse_leader(text);
  (void)etcd::Keys("/t/").parse_piece(text);
  const Result<nlohmann::json> answer = parse_json(text);
  if (!answer) return 0;
  (void)etcd::error_in(*answer);
  (void)etcd::parse_range(*answer);
  (void)etcd::parse_txn(*answer);
  (void)etcd::parse_grant(*answer);
  (void)etcd::parse_keepalive(*answer);
  (void)etcd::parse_watch(*answer);
  return 0;
}
