// SPDX-License-Identifier: Apache-2.0
// Which content coding a client gets (RFC 9110 §12.5.3). Pure.
#pragma once

#include <string_view>
#include <vector>

#include "conf/policy/compress.h"
#include "l7/wire/message.h"

namespace tidegate::l7::policy {

// The coding of the highest weight above zero; among equal ones the first in `preference`. It is identity if the client
// names none of these codings, gives identity a higher weight, or sends no Accept-Encoding. A malformed member of the
// list is ignored. A client that accepts nothing at all gets identity: the RFC allows it, and it is more useful than
// 406.
Coding choose_coding(const FieldList& request_fields, const std::vector<Coding>& preference);

}  // namespace tidegate::l7::policy
