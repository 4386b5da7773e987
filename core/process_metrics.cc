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

const uint64_t g_started_ns = monotonic_ns();

uint64_t resident_bytes() {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> statm(std::fopen("/proc/self/statm", "re"), &std::fclose);
  unsigned long size_pages = 0, resident_pages = 0;
  if (!statm || std::fscanf(statm.get(), "%lu %lu", &size_pages, &resident_pages) != 2) return 0;
  return resident_pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

uint64_t open_fds() {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), &::closedir);
  if (!directory) return 0;
  uint64_t entries = 0;
  while (::readdir(directory.get()) != nullptr) ++entries;
  return entries - 3;  // ".", ".." and the directory itself
}

}  // namespace

std::string process_metrics_text(std::string_view prefix) {
  std::string out;
  const auto family = [&](std::string_view name, std::string_view type, std::string_view help, double value) {
    out += fmt::format("# HELP {0}_{1} {2}\n# TYPE {0}_{1} {3}\n{0}_{1} {4:.9g}\n", prefix, name, help, type, value);
  };
  family("process_cpu_seconds_total", "counter", "CPU time used by all threads.",
         static_cast<double>(clock_ns(CLOCK_PROCESS_CPUTIME_ID)) / 1e9);
  family("process_resident_memory_bytes", "gauge", "Memory in RAM.", static_cast<double>(resident_bytes()));
  family("process_open_fds", "gauge", "Open file descriptors.", static_cast<double>(open_fds()));
  family("process_max_fds", "gauge", "File descriptors that may be open.", static_cast<double>(open_files_limit()));
  family("process_uptime_seconds", "gauge", "Since the process started.",
         static_cast<double>(monotonic_ns() - g_started_ns) / 1e9);
  out += fmt::format("# HELP {0}_build_info The version that runs.\n# TYPE {0}_build_info gauge\n", prefix);
  out += fmt::format("{}_build_info{{version=\"{}\"}} 1\n", prefix, TIDEGATE_VERSION);
  return out;
}

}  // namespace tidegate
