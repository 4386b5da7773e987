// SPDX-License-Identifier: Apache-2.0
// Checks an LMDB file before LMDB opens it. LMDB maps its file and trusts the content: a truncated file ends the
// process by SIGBUS, a garbled one by an assertion. This check reads with pread(2) and returns an Error instead.
#pragma once

#include <string>

#include "core/result.h"

namespace tidegate::lmdb {

// Walks every tree from the newer meta page. Each page must be within the file and have the form that LMDB gives it
// (lmdb 0.9, 64-bit). Values are not checked. A missing or empty file is valid: it is a new environment. Another
// process may write meanwhile. It reads every branch and leaf page: about 1 ms for 10 MB in the page cache.
Result<void> check(const std::string& directory);

}  // namespace tidegate::lmdb
