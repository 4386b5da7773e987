// How many files and sockets this process may have open at once.
#pragma once

#include <cstdint>

namespace tidegate {

uint64_t open_files_limit();

// Takes all that the system lets it have. A shell or a service manager begins with 1024 for the sake of select(2),
// which nothing here uses; a proxy has two descriptors a request, a control one for each probe that is under way.
void raise_open_files_limit();

}  // namespace tidegate
