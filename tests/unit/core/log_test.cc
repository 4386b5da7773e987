// SPDX-License-Identifier: Apache-2.0
#include "core/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/fd.h"
#include "core/limits.h"
#include "core/metrics.h"

namespace tidegate::log_test {

TEST(Log, AMessageForgesNoLineAndNoTerminalCommand) {
  EXPECT_EQ(printable("backend said 200 OK"), "backend said 200 OK");
  EXPECT_EQ(printable("x\n2026-11-26T06:00:00.000Z info control: root was here"),
            "x\n    2026-11-26T06:00:00.000Z info control: root was here");
  EXPECT_EQ(printable(std::string_view("a\r\x1b[2J\0\x7f", 8)), "a\\x0d\\x1b[2J\\x00\\x7f");
  EXPECT_EQ(printable("caf\xc3\xa9"), "caf\xc3\xa9");
}

TEST(Log, AMessageIsCutAndSaysSo) {
  const std::string cut = printable(std::string(10 * kLogMessageBytes, '\x1b'));
  EXPECT_LT(cut.size(), kLogMessageBytes + 32);
  EXPECT_TRUE(cut.ends_with(" [cut]"));
  const std::string whole(kLogMessageBytes, 'x');
  EXPECT_EQ(printable(whole), whole);
}

TEST(Log, WhatStandardErrorDoesNotTakeIsCounted) {
  Counter& dropped = metrics().counter("tidegate_log_lines_dropped_total", "");
  const uint64_t before = dropped.value();
  const UniqueFd kept(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(full);
  ::dup2(full.get(), STDERR_FILENO);
  log_info("lost");
  ::dup2(kept.get(), STDERR_FILENO);
  EXPECT_EQ(dropped.value(), before + 1);
}

}  // namespace tidegate::log_test
