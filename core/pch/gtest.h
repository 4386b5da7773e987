// SPDX-License-Identifier: Apache-2.0
// The standard library and GoogleTest, for unit tests. See std.h.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/pch/std.h"
