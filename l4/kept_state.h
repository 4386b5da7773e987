// SPDX-License-Identifier: Apache-2.0
// KeptState: the state that outlives the process: the flow tables of all workers, and the neighbours that they
// resolved. It is the file `l4.flows` in the run directory. The tables of all workers are mapped from it. So nothing
// has to be saved at the end, and a killed process leaves as much as a stopped one. The file `l4.flows.ids` says which
// backend each id in the tables means (KeptIds).
//
// Layout of `l4.flows`: a header of one page; kMaxNeighbours records KeptNeighbour; then a flow table for each worker.
// All memory of the file is allocated when it is made, so that no later write can fail. The file needs a tmpfs: the
// pages of any other file system are written back to a disk while the workers write to them.
//
// A successor uses the tables only if everything in the header fits: layout, boot, secret, workers, size, age. Then
// ConnTable::take_over checks each entry. If something does not fit, the tables begin empty, and the log names the
// reason.
//
// Threads: the control thread. A worker gets its own part of the memory before it starts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "l4/kept_ids.h"
#include "l4/kept_neighbour.h"

namespace tidegate::l4 {

// The facts that must be equal in the previous process and its successor.
struct KeptShape {
  uint32_t workers = 1;
  uint64_t flows = 0;         // entries of each worker's table, as ConnTable counts them
  uint64_t secret_check = 0;  // derived from the site's secret: the hashes in the tables depend on it
  // devices of the ports, in order. If they differ, only the neighbours are lost.
  std::vector<std::string> devices = {};
};

// The part of one worker. All null: nothing is kept.
struct KeptMemory {
  void* flows = nullptr;                // zeroed, or used by the previous process
  KeptNeighbour* neighbours = nullptr;  // kMaxNeighbours records
  const std::vector<bool>* known_ids = nullptr;
  bool inherited = false;             // the flows are those of the previous process
  bool neighbours_inherited = false;  // the neighbours are those of the previous process
  uint32_t now_ms = 0;
};

class KeptState {
 public:
  // Takes over the file in `directory`, or makes a new one. Waits until another process releases it, at most
  // kLockWaitMs. An Error says why nothing can be kept.
  static Result<std::unique_ptr<KeptState>> open(const std::string& directory, const KeptShape& shape, uint64_t now_ns);
  ~KeptState();
  KeptState(const KeptState&) = delete;
  KeptState& operator=(const KeptState&) = delete;

  bool inherited() const { return why_new_.empty(); }
  // why the tables began empty; empty: they did not begin empty
  const std::string& why_new() const { return why_new_; }
  const std::string& path() const { return path_; }
  // Makes a new file although the old one could be inherited. Call it before memory_of().
  Result<void> begin_anew(const KeptShape& shape, uint64_t now_ns, std::string why);
  const KeptIds& ids() const { return ids_; }  // of the previous process; empty unless inherited()
  KeptMemory memory_of(uint32_t worker, uint64_t now_ns) const;

  // Call before a worker can use an id that the last call did not name. After an Error the tables are not valid for a
  // successor, until a call succeeds.
  Result<void> write_ids(const KeptIds& ids);
  // Writes the time of the last use. Call it regularly. A successor refuses tables that were not used for longer than
  // kMaxFlowTimeoutMs, because the short clock in their entries is not valid then.
  void tell_alive(uint64_t now_ns);

  static constexpr uint32_t kLayout = 1;  // layout of the file, and of FlowEntry and KeptNeighbour in it
  static constexpr uint64_t kLockWaitMs = 1'000;

 private:
  struct Header;
  KeptState() = default;
  std::string why_not(const KeptShape& shape, uint64_t now_ns, uint64_t file_bytes);
  std::string read_ids();
  Result<void> make(const KeptShape& shape, uint64_t now_ns);
  Result<void> map(uint64_t bytes);
  std::string ids_path() const { return path_ + ".ids"; }

  std::string path_, why_new_;
  UniqueFd file_;  // holds the lock
  uint8_t* memory_ = nullptr;
  Header* header_ = nullptr;
  uint64_t mapped_bytes_ = 0, table_bytes_ = 0;
  bool same_devices_ = false;
  KeptIds ids_;
  std::vector<bool> known_;  // by BackendId
};

}  // namespace tidegate::l4
