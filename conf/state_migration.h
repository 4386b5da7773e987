// SPDX-License-Identifier: Apache-2.0
// From format 1 of a host's state, in which private keys lie among the other objects, to format 2, in which they lie in
// the SecretStore.
#pragma once

#include <string>

#include "conf/secret_store.h"
#include "core/fd.h"
#include "core/result.h"

namespace tidegate {

// Puts a state of format 2 in the place of <state_dir>/state: a new environment into which everything but the keys is
// copied, so that no page of its file ever held one. The keys are in `secrets`, on the disk, before. The old
// environment is removed; it is in place, whole, until the two directories are exchanged in one step. A process that
// has it open keeps its pages until it follows the new one, within a second.
//
// Copies of format 1 that were put aside in the state directory become their owner's alone.
// The caller holds the writer's lock; returned is the same lock of the new environment.
Result<UniqueFd> migrate_state(const std::string& state_dir, SecretStore& secrets);

// What a migration that was cut off has left.
void remove_migration_leftovers(const std::string& state_dir);

}  // namespace tidegate
