// SPDX-License-Identifier: Apache-2.0
// The keys of an edge in etcd, below its prefix:
//
//   now/leader                         who leads; lives as long as that control's lease
//   now/head                           the newest decided write: it is decided when this key names it
//   journal/SEQUENCE/PIECE-PIECES      the decided writes, in order
//   checkpoint/SEQUENCE/PIECE-PIECES   the whole state after the write SEQUENCE
//
// Values of the journal and checkpoints are sealed with a key derived from the site's secret (AES-128-GCM), because
// they contain private keys. Inside, a write is a write set and the digest of the previous write. So a chain of digests
// leads to the head, and a host notices if its state is not on the chain.
//
// Pure functions, for any thread. What they parse comes from the network.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "conf/state_store.h"
#include "core/result.h"

namespace tidegate::etcd {

struct CheckpointRef {
  JournalPosition position;
  uint64_t bytes = 0;
  bool operator==(const CheckpointRef&) const = default;
};

struct Head {
  JournalPosition position;
  uint64_t first = 0;  // the oldest write that the journal still has
  uint64_t bytes = 0;  // size of the writes after the checkpoint
  CheckpointRef checkpoint;
  bool operator==(const Head&) const = default;
};

struct LeaderRecord {
  std::string node;
  std::string api;  // ADDRESS:PORT; may be empty
};

std::string encode(const Head& head);
Result<Head> parse_head(std::string_view text);
std::string encode(const LeaderRecord& leader);
LeaderRecord parse_leader(std::string_view text);  // Members are empty if the text does not have them.

class Keys {
 public:
  explicit Keys(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string now() const { return prefix_ + "now/"; }
  std::string head() const { return prefix_ + "now/head"; }
  std::string leader() const { return prefix_ + "now/leader"; }
  // The beginning of the keys for that write's pieces. The pieces of earlier writes end there.
  std::string journal(uint64_t sequence) const;
  std::string journal_end() const;
  std::string checkpoint(uint64_t sequence) const;
  std::string checkpoint_end() const;
  static std::string piece(std::string_view of, uint64_t index, uint64_t count);

  struct Piece {
    uint64_t sequence = 0, index = 0, count = 0;
  };
  // Returns nothing for a key that this release does not make.
  std::optional<Piece> parse_piece(std::string_view key) const;

 private:
  std::string prefix_;
};

// --- the content
struct Write {
  std::string previous;  // digest of the previous write
  WriteSet set;
};
std::string seal_key(std::string_view site_secret);
// Returns the sealed bytes of the write that follows the one with the digest `previous`, and sets its digest.
std::string seal_write(std::string_view key, std::string_view previous, const WriteSet& set, std::string& digest);
// Returns an Error if it was sealed with another secret, or is damaged.
Result<Write> open_write(std::string_view key, std::string_view sealed, std::string& digest);

}  // namespace tidegate::etcd
