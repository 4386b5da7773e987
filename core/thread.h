// SPDX-License-Identifier: Apache-2.0
// Threads with names, which top -H, perf and a debugger show.
#pragma once

#include <pthread.h>

#include <string>
#include <thread>
#include <utility>

namespace tidegate {

// Only the first 15 bytes of `name` are kept.
template <class Run>
std::thread start_thread(const std::string& name, Run run) {
  std::thread thread(std::move(run));
  ::pthread_setname_np(thread.native_handle(), name.substr(0, 15).c_str());
  return thread;
}

}  // namespace tidegate
