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
#include <vector>

#include "control/etcd/client.h"
#include "control/etcd/records.h"

namespace tidegate::etcd {

class JournalReader {
 public:
  JournalReader(Client& client, const Keys& keys) : client_(client), keys_(keys) {}

  // Calls `on_value` for each value whose pieces are all between `from` and `end`, in order. It calls `taken` once, now
  // or later: the next value waits for it, and an Error stops the read. At the end calls `done`, without an Error if
  // everything was read. One read at a time.
  using Taken = std::function<void(Result<void>)>;
  using Pieces = std::vector<std::string>;  // not put together, because that takes milliseconds
  using OnValue = std::function<void(uint64_t sequence, Pieces pieces, Taken taken)>;
  void read(std::string from, std::string end, OnValue on_value, std::function<void(Result<void>)> done);
  bool reading() const { return under_way_ != nullptr; }

 private:
  // To parse the answer takes as long as the loop may be busy. Small pieces are read in larger numbers.
  static constexpr uint64_t kLargePiecesAtOnce = 2;
  struct Read {
    std::string from, end;
    uint64_t at_once = kLargePiecesAtOnce;  // asked for by the next request
    OnValue on_value;
    std::function<void(Result<void>)> done;
    Range range;      // the last answer
    size_t next = 0;  // in it: the next piece to take
    size_t range_bytes = 0;
    Keys::Piece last;  // last piece of the value that is being collected
    Pieces pieces;     // of it
    size_t bytes = 0;  // of these
  };
  void ask();
  void take();
  Result<bool> take_piece(Read& read, KeyValue& kv);
  void finish(Result<void> result);

  Client& client_;
  const Keys& keys_;
  std::unique_ptr<Read> under_way_;
};

}  // namespace tidegate::etcd
