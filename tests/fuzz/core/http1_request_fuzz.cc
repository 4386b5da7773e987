// SPDX-License-Identifier: Apache-2.0
// A request head: the parser never reads past its bytes, its views point only into them, and two pieces give the same
// result as one.
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "core/http1.h"

namespace {

using namespace tidegate::http1;

void require(bool holds) {
  if (!holds) std::abort();
}

void require_inside(std::string_view part, std::string_view whole) {
  // "/" and "*" replace what an absolute-form target omits.
  if (part.empty() || part == "/" || part == "*") return;
  require(part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void check_accepted(const Head& head, std::string_view bytes, size_t consumed) {
  require(consumed <= bytes.size() && bytes.substr(0, consumed).ends_with("\r\n\r\n"));
  require(is_token(head.method) && !head.target.empty() && head.field_count <= kMaxFields);
  for (const std::string_view part : {head.method, head.target, head.path, head.query, head.authority})
    require_inside(part, bytes);
  for (const Field& field : head) {
    require(is_token(field.name) && is_field_value(field.value));
    require_inside(field.name, bytes);
    require_inside(field.value, bytes);
  }
  require(head.framing != Framing::until_close);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  Limits limits;
  if ((data[0] & 0x80) != 0) limits = {200, 50, 5, 16, 64, 32};
  // The input is copied to a buffer of its exact size, so that the sanitizer sees a read past the end.
  const std::unique_ptr<char[]> storage(new char[size - 1]);
  std::copy(data + 1, data + size, storage.get());
  const std::string_view bytes(storage.get(), size - 1);

  static Head whole, pieces;
  size_t scanned = 0;
  const ParseResult result = parse_request(bytes, limits, scanned, whole);
  if (result.status == Status::complete) check_accepted(whole, bytes, result.consumed);

  scanned = 0;
  const size_t split = bytes.empty() ? 0 : data[0] * bytes.size() / 256;
  ParseResult again = parse_request(bytes.substr(0, split), limits, scanned, pieces);
  if (again.status == Status::incomplete) again = parse_request(bytes, limits, scanned, pieces);
  // An incomplete head may later be faulty, but a complete one never becomes incomplete.
  if (again.status == Status::incomplete) {
    require(result.status != Status::complete);
    return 0;
  }
  require(again.status == result.status && again.fault == result.fault && again.consumed == result.consumed);
  if (again.status == Status::complete) {
    require(pieces.path == whole.path && pieces.field_count == whole.field_count && pieces.framing == whole.framing);
  }
  return 0;
}
