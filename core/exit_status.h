// SPDX-License-Identifier: Apache-2.0
// The exit statuses of the daemons. Whoever starts them again (the units of systemd, `tidegate run`) decides by these.
#pragma once

#include <string_view>

namespace tidegate {

// The daemon said why it cannot run. Another start would end in the same way until a person has changed something.
constexpr int kExitCannotRun = 1;
constexpr int kExitWrongOptions = 2;
// EX_TEMPFAIL of sysexits.h: what it lacks may come by itself (memory, room on a disk, descriptors, an address).
constexpr int kExitTryAgain = 75;

// kExitCannotRun or kExitTryAgain. `why` is the message of an Error: a sentence with the system's text. Any thread.
int exit_status_of(std::string_view why);
// True if only a person can remove the reason why the system refused: a port is taken, a privilege is missing.
bool needs_a_person(std::string_view why);

}  // namespace tidegate
