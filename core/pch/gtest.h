// SPDX-License-Identifier: Apache-2.0
// The standard library and GoogleTest, for unit tests. See std.h.
#ifndef TIDEGATE_CORE_PCH_GTEST_H_
#define TIDEGATE_CORE_PCH_GTEST_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/pch/std.h"

#endif  // TIDEGATE_CORE_PCH_GTEST_H_
