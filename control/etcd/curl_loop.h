// SPDX-License-Identifier: Apache-2.0
// CurlLoop by its name in this folder.
#pragma once

#include "core/curl_loop.h"

namespace tidegate::etcd {
using tidegate::CurlLoop;
}  // namespace tidegate::etcd
