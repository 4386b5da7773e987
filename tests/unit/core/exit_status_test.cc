// SPDX-License-Identifier: Apache-2.0
#include "core/exit_status.h"

#include <gtest/gtest.h>
#include <lmdb.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace tidegate::exit_status_test {

std::string refused(int number) { return std::string("cannot listen on 192.0.2.1:53: ") + std::strerror(number); }

TEST(ExitStatus, IsAnotherTryForWhatMayComeByItself) {
  for (const int number : {ENOMEM, ENOSPC, EMFILE, ENFILE, EADDRNOTAVAIL, EIO}) {
    EXPECT_EQ(exit_status_of(refused(number)), kExitTryAgain) << std::strerror(number);
    EXPECT_FALSE(needs_a_person(refused(number))) << std::strerror(number);
  }
  EXPECT_EQ(exit_status_of(std::string("the state: ") + mdb_strerror(ENOSPC) + " (in /x)"), kExitTryAgain);
}

TEST(ExitStatus, IsTheEndForWhatOnlyAPersonChanges) {
  for (const int number : {EADDRINUSE, EACCES, EPERM}) {
    EXPECT_EQ(exit_status_of(refused(number)), kExitCannotRun) << std::strerror(number);
    EXPECT_TRUE(needs_a_person(refused(number))) << std::strerror(number);
  }
  EXPECT_EQ(exit_status_of(refused(ENOSPC) + "; " + refused(EACCES)), kExitCannotRun);
  EXPECT_EQ(exit_status_of("the configuration has no node 'a'"), kExitCannotRun);
}

}  // namespace tidegate::exit_status_test
