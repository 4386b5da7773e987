// SPDX-License-Identifier: Apache-2.0
// Migrates format 1 of a host's state, in which private keys are among the other objects, to format 2, in which they
// are in the SecretStore.
#pragma once

#include <string>

#include "conf/secret_store.h"
#include "core/fd.h"
#include "core/result.h"

namespace tidegate {

// Replaces <state_dir>/state by a state of format 2. It is a new environment that gets everything except the keys, so
// no page of its file ever contained a key. The keys are on the disk in `secrets` before that. The old environment
// stays whole and in place until the two directories are exchanged in one step. Then it is removed. A process that has
// it open keeps its pages until it follows the new one, within a second.
//
// Old copies of format 1 in the state directory become readable for their owner only. The caller holds the writer's
// lock. Returns the same lock of the new environment.
Result<UniqueFd> migrate_state(const std::string& state_dir, SecretStore& secrets);

// Removes what an interrupted migration has left.
void remove_migration_leftovers(const std::string& state_dir);

}  // namespace tidegate
