// SPDX-License-Identifier: Apache-2.0
// KeyFetcher: keeps every KeySource of the Plan in force up to date, over libcurl, on the main thread's loop. It never
// blocks, and no worker takes part. A set is fetched at once, then every `keys_refresh`; after a failure sooner, and
// early when a token has named an unknown key. Early fetches have a budget, because anybody can name an unknown key.
//
// Threads: the main one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/event_loop.h"
#include "l7/policy/key_source.h"

namespace tidegate {
class CurlLoop;
}

namespace tidegate::l7::policy {

class KeyFetcher {
 public:
  explicit KeyFetcher(EventLoop& loop);
  ~KeyFetcher();
  // From now on fetches for these, and for no others. A source that is used twice is fetched as often as the more
  // eager one wants.
  void follow(const std::vector<KeySourceUse>& uses);

 private:
  struct Work;
  void look();
  void start(Work& work);
  void finish(Work& work, const std::string& why);

  EventLoop& loop_;
  std::unique_ptr<CurlLoop> curl_;  // null: nothing had to be fetched so far
  std::map<KeySource*, std::unique_ptr<Work>> works_;
  Timer timer_;  // fires from time to time while there are sources, because no worker wakes this thread
};

}  // namespace tidegate::l7::policy
