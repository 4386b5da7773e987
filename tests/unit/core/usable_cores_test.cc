// SPDX-License-Identifier: Apache-2.0
#include "core/usable_cores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace tidegate::usable_cores_test {
namespace {

namespace fs = std::filesystem;
using ::testing::Optional;

// What /proc/self and the mounted cgroups say, as files.
class CoresOfCgroups : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "tidegate-cores-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    home_ = name;
  }
  void TearDown() override { fs::remove_all(home_); }

  void write(const std::string& name, const std::string& text) {
    fs::create_directories((home_ / name).parent_path());
    std::ofstream(home_ / name) << text;
  }
  void in_cgroup(const std::string& cgroup, const std::string& root = "/") {
    write("proc/cgroup", "1:name=systemd:/elsewhere\n0::" + cgroup + "\n");
    write("proc/mountinfo", "22 1 0:20 / /sys rw,nosuid shared:2 - sysfs sysfs rw\n30 22 0:26 " + root + " " +
                                (home_ / "sys").string() + " rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw\n");
  }
  std::optional<uint32_t> cores() { return cores_of_cgroups((home_ / "proc").string()); }

  fs::path home_;
};

TEST_F(CoresOfCgroups, APartOfACoreCountsAsOne) {
  in_cgroup("/system.slice/tidegate-l7.service");
  const std::string own = "sys/system.slice/tidegate-l7.service/cpu.max";
  for (const auto& [text, cores_of_it] : std::map<std::string, uint32_t>{
           {"200000 100000", 2}, {"150000 100000", 2}, {"20000 100000", 1}, {"1000 1000000", 1}, {"400000 50000", 8}}) {
    write(own, text + "\n");
    EXPECT_THAT(cores(), Optional(cores_of_it)) << text;
  }
}

TEST_F(CoresOfCgroups, TheStrictestOfThoseAboveCounts) {
  in_cgroup("/a/b/c");
  write("sys/a/b/c/cpu.max", "max 100000\n");
  EXPECT_EQ(cores(), std::nullopt) << "no bound anywhere";
  write("sys/a/cpu.max", "300000 100000\n");
  EXPECT_THAT(cores(), Optional(3));
  write("sys/a/b/cpu.max", "500000 100000\n");
  EXPECT_THAT(cores(), Optional(3));
  write("sys/a/b/c/cpu.max", "100000 100000\n");
  EXPECT_THAT(cores(), Optional(1));
}

TEST_F(CoresOfCgroups, AContainerSeesItsPart) {
  write("sys/cpu.max", "200000 100000\n");
  in_cgroup("/");  // a namespace of cgroups, that begins at its own
  EXPECT_THAT(cores(), Optional(2));
  in_cgroup("/machine/one", "/machine/one");  // none, and its own is what is mounted
  EXPECT_THAT(cores(), Optional(2));
  in_cgroup("/machine/one/inner", "/machine/one");
  write("sys/inner/cpu.max", "100000 100000\n");
  EXPECT_THAT(cores(), Optional(1));
  in_cgroup("/machine/onelonger", "/machine/one");
  EXPECT_THAT(cores(), Optional(2)) << "another cgroup whose name begins alike";
}

TEST_F(CoresOfCgroups, WhatCannotBeReadIsNoBound) {
  EXPECT_EQ(cores(), std::nullopt) << "no files";
  in_cgroup("/a");
  EXPECT_EQ(cores(), std::nullopt) << "no cpu.max";
  for (const char* text : {"", "max", "100000", "100000 0", "-5 100000", "many 100000"}) {
    write("sys/a/cpu.max", text);
    EXPECT_EQ(cores(), std::nullopt) << text;
  }
  write("proc/mountinfo", "30 22 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n");
  EXPECT_EQ(cores(), std::nullopt) << "no cgroup of version 2";
}

TEST(UsableCores, IsWhatTheKernelMayUse) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(before), &before), 0);
  EXPECT_GE(usable_cores(), 1U);
  EXPECT_LE(usable_cores(), static_cast<uint32_t>(CPU_COUNT(&before)));
  size_t first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(usable_cores(), 1U);
  ASSERT_EQ(::sched_setaffinity(0, sizeof(before), &before), 0);
}

}  // namespace
}  // namespace tidegate::usable_cores_test
