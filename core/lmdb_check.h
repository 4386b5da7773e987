// SPDX-License-Identifier: Apache-2.0
// Looks at an LMDB file before LMDB does. LMDB maps its file and trusts what is in it: a truncated one ends the process
// by SIGBUS, a garbled one by an assertion. This check reads with pread(2) and returns an Error instead.
#pragma once

#include <string>

#include "core/result.h"

namespace tidegate::lmdb {

// Walks every tree from the newer meta page: each page must lie in the file and be shaped as LMDB shapes it (lmdb 0.9,
// 64-bit). Values are not judged. A missing or empty file is sound: it is a new environment. Another process may write
// meanwhile. Costs a read of every branch and leaf page: about 1 ms for 10 MB in the page cache.
Result<void> check(const std::string& directory);

}  // namespace tidegate::lmdb
