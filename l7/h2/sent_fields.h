// SPDX-License-Identifier: Apache-2.0
// What both sides ask of the fields that they send.
#pragma once

#include <cstddef>

#include "l7/h2/hpack.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// Bytes of the names and values of Fields.
template <class Fields>
size_t text_bytes_of(const Fields& fields) {
  size_t bytes = 0;
  for (const Field& field : fields) bytes += field.name.size() + field.value.size();
  return bytes;
}

// No two requests share an id. In the compression table it would displace fields that requests share.
inline Indexing indexing_of(FieldKind kind) {
  return kind == FieldKind::x_request_id ? Indexing::name_only : Indexing::by_name;
}

}  // namespace tidegate::l7
