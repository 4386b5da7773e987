// SPDX-License-Identifier: Apache-2.0
#include "core/process_metrics.h"

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "core/clock.h"
#include "core/open_files.h"

namespace tidegate {
namespace {

const double g_started_s = static_cast<double>(realtime_ns()) / 1e9;

struct Memory {
  uint64_t virtual_bytes = 0, resident_bytes = 0;
};

Memory memory() {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> statm(std::fopen("/proc/self/statm", "re"), &std::fclose);
  unsigned long size_pages = 0, resident_pages = 0;
  if (!statm || std::fscanf(statm.get(), "%lu %lu", &size_pages, &resident_pages) != 2) return {};
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return {size_pages * page_bytes, resident_pages * page_bytes};
}

uint64_t open_fds() {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), &::closedir);
  if (!directory) return 0;
  uint64_t entries = 0;
  while (::readdir(directory.get()) != nullptr) ++entries;
  return entries - 3;  // do not count ".", ".." and the directory itself
}

}  // namespace

std::string process_metrics_text(std::string_view prefix) {
  std::string out;
  const auto family = [&](std::string_view name, std::string_view type, std::string_view help, double value) {
    out += fmt::format("# HELP process_{0} {1}\n# TYPE process_{0} {2}\nprocess_{0} {3}\n", name, help, type, value);
  };
  const Memory used = memory();
  family("cpu_seconds_total", "counter", "CPU time used by all threads.",
         static_cast<double>(clock_ns(CLOCK_PROCESS_CPUTIME_ID)) / 1e9);
  family("resident_memory_bytes", "gauge", "Memory in RAM.", static_cast<double>(used.resident_bytes));
  family("virtual_memory_bytes", "gauge", "Address space in use.", static_cast<double>(used.virtual_bytes));
  family("open_fds", "gauge", "Open file descriptors.", static_cast<double>(open_fds()));
  family("max_fds", "gauge", "File descriptors that may be open.", static_cast<double>(open_files_limit()));
  family("start_time_seconds", "gauge", "When the process started, in seconds since 1970.", g_started_s);
  out += fmt::format("# HELP {0}_build_info The version that runs.\n# TYPE {0}_build_info gauge\n", prefix);
  out += fmt::format("{}_build_info{{version=\"{}\"}} 1\n", prefix, TIDEGATE_VERSION);
  return out;
}

}  // namespace tidegate
