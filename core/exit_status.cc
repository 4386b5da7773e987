// SPDX-License-Identifier: Apache-2.0
#include "core/exit_status.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace tidegate {
namespace {

constexpr std::array kNeedAPerson = {EADDRINUSE, EACCES, EPERM};
constexpr std::array kMayPass = {ENOMEM, ENOSPC, EDQUOT, EMFILE, ENFILE, EAGAIN, ENOBUFS, EIO, EADDRNOTAVAIL};

template <size_t N>
bool has_any(std::string_view why, const std::array<int, N>& numbers) {
  return std::any_of(numbers.begin(), numbers.end(),
                     [&](int number) { return why.find(std::strerror(number)) != std::string_view::npos; });
}

}  // namespace

int exit_status_of(std::string_view why) {
  return has_any(why, kMayPass) && !needs_a_person(why) ? kExitTryAgain : kExitCannotRun;
}

bool needs_a_person(std::string_view why) { return has_any(why, kNeedAPerson); }

}  // namespace tidegate
