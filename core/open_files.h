// SPDX-License-Identifier: Apache-2.0
// The number of files and sockets that this process may have open, and the errors which mean that our own limit is
// reached.
#pragma once

#include <cstdint>

#include "core/fd.h"

namespace tidegate {

uint64_t open_files_limit();

// Raises the limit to all that the system allows. A shell or a service manager starts us with 1024 for the sake of
// select(2), which nothing here uses. A proxy needs two descriptors per request, and control needs one for each running
// probe.
void raise_open_files_limit();

// True if the number of `fd` is reserved. The last descriptors are for the admin socket, the log and the next
// configuration. Code that opens a socket for a client, or because of one, must call this and close the socket if it
// returns true. The kernel gives the lowest free number, so a number tells how many are open. kReservedFiles numbers
// are reserved; of a small limit, an eighth.
bool is_reserved_file(int fd);
// Returns the same file with the lowest free number. Use it when another file was closed to make room for a file that
// has a reserved number. Then the numbers still show how many files are open. If it fails, the file keeps its number.
UniqueFd under_lowest_number(UniqueFd fd);

// True if the error of an open, accept or connect means that this process or host reached a limit of its own:
// descriptors (EMFILE, ENFILE), memory for sockets (ENOBUFS, ENOMEM), ports (EADDRNOTAVAIL). Then the peer is not at
// fault.
bool is_own_limit(int error);

// True if a connection waits to be accepted. Without a free descriptor, accept(2) returns EMFILE even if none waits.
bool connection_waits(int listener);

}  // namespace tidegate
