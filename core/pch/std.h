// SPDX-License-Identifier: Apache-2.0
// The standard library headers that most sources use, precompiled for every source of a room. A source must still
// include what it uses: `./run lint` builds without this header. These headers have guards, because g++ warns about
// `pragma once` in a header that it compiles by itself.
#ifndef TIDEGATE_CORE_PCH_STD_H_
#define TIDEGATE_CORE_PCH_STD_H_

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#endif  // TIDEGATE_CORE_PCH_STD_H_
