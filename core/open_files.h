// SPDX-License-Identifier: Apache-2.0
// How many files and sockets this process may have open at once, and whose fault it is when there are no more.
#pragma once

#include <cstdint>

#include "core/fd.h"

namespace tidegate {

uint64_t open_files_limit();

// Takes all that the system lets it have. A shell or a service manager begins with 1024 for the sake of select(2),
// which nothing here uses; a proxy has two descriptors a request, a control one for each probe that is under way.
void raise_open_files_limit();

// The last descriptors are for the admin socket, the log and the next configuration. Whoever opens a socket for a
// client, or because of one, asks this about it and closes it when the answer is yes. The kernel gives the lowest free
// number, so a number says how many are open. They are kReservedFiles, of a small limit an eighth.
bool is_reserved_file(int fd);
// The same file under the lowest free number: for one with a reserved number, once another was closed for it. Numbers
// go on saying how many are open then. Where that fails the file keeps its number.
UniqueFd under_lowest_number(UniqueFd fd);

// The error of a call that opens, accepts or connects says that this process or host has reached a limit of its own:
// descriptors (EMFILE, ENFILE), memory for sockets (ENOBUFS, ENOMEM), ports (EADDRNOTAVAIL). The peer is not to blame.
bool is_own_limit(int error);

// Whether a connection waits to be accepted: accept(2) without a descriptor says EMFILE also where nobody waits.
bool connection_waits(int listener);

}  // namespace tidegate
