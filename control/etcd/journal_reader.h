// SPDX-License-Identifier: Apache-2.0
// JournalReader: reads values that are stored in pieces, in the order of their keys, with as many requests as
// necessary.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "control/etcd/client.h"
#include "control/etcd/records.h"

namespace tidegate::etcd {

class JournalReader {
 public:
  JournalReader(Client& client, const Keys& keys) : client_(client), keys_(keys) {}

  // Calls `on_value` for each value whose pieces are all between `from` and `end`, in order. `on_value` returns an
  // Error to stop. Then calls `done`, without an Error if everything was read. One read at a time.
  using OnValue = std::function<Result<void>(uint64_t sequence, std::string bytes)>;
  void read(std::string from, std::string end, OnValue on_value, std::function<void(Result<void>)> done);
  bool reading() const { return under_way_ != nullptr; }

 private:
  struct Read {
    std::string from, end;
    OnValue on_value;
    std::function<void(Result<void>)> done;
    Keys::Piece last;   // last piece of the value that is being put together
    std::string bytes;  // of it
  };
  void ask();
  Result<void> take(Read& read, const Range& range);
  void finish(Result<void> result);

  Client& client_;
  const Keys& keys_;
  std::unique_ptr<Read> under_way_;
};

}  // namespace tidegate::etcd
