// SPDX-License-Identifier: Apache-2.0
// LogSink: where the access log's thread puts lines. It may wait for a disk, and a moment for a collector; workers
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
  // An Error: the target cannot be used. A collector that is not there is none.
  virtual Result<void> open() = 0;
  // Takes bytes from the front of `waiting`, which is not empty: how many, or -1 with errno. EAGAIN: there is no room
  // now. What it has not taken is given again. Lines follow each other; a call may end within one.
  virtual ssize_t write(std::string_view waiting) = 0;
  // Looks whether the target is another one by now. True: from here on lines go to a new one, which has no beginning of
  // a line.
  virtual bool moved() { return false; }
  // For sentences: a path, or the address of a collector.
  virtual std::string where() const = 0;
};

// `dropped` counts lines that a collector refuses. Null: no target.
std::unique_ptr<LogSink> make_log_sink(const LogTarget& target, Counter& dropped);

}  // namespace tidegate::l7
