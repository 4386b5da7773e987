// SPDX-License-Identifier: Apache-2.0
// LogSink: the target of the access log's thread. A write may wait for a disk, and briefly for a collector. Workers
// never wait for it.
//
// Threads: the log's.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "conf/log_target.h"
#include "core/metrics.h"
#include "core/result.h"

namespace tidegate::l7 {

class LogSink {
 public:
  virtual ~LogSink() = default;
  // Returns an Error if the target cannot be used. A collector that does not exist yet is no Error.
  virtual Result<void> open() = 0;
  // Takes bytes from the front of `waiting`, which is not empty. Returns how many it took, or -1 with errno. EAGAIN:
  // there is no room now. Bytes that were not taken are given again. Lines follow each other, and a call may end within
  // a line.
  virtual ssize_t write(std::string_view waiting) = 0;
  // Checks whether the target was replaced. Returns true if the next lines go to a new one, which has no beginning of a
  // line.
  virtual bool moved() { return false; }
  // For messages: a path, or the address of a collector.
  virtual std::string where() const = 0;
};

// `dropped` counts lines that a collector refuses. Returns null if there is no target.
std::unique_ptr<LogSink> make_log_sink(const LogTarget& target, Counter& dropped);

}  // namespace tidegate::l7
