// SPDX-License-Identifier: Apache-2.0
// TIDEGATE_ASSERT: states what must hold unless our own code is wrong. It ends the process if it does not hold.
//
// It is used at the borders of modules: arguments, state before and after a call, sizes before copies, unreachable
// branches. It is on in every build, so a condition must be cheap. It is never the answer to bad input: that is a
// Result, an enum or a fault.
#pragma once

namespace tidegate {

// Writes "file:line: message (condition)" to standard error and aborts. Allocates nothing; any thread.
[[noreturn]] void assertion_failed(const char* file, int line, const char* condition, const char* message) noexcept;

}  // namespace tidegate

#define TIDEGATE_ASSERT(condition, message)          \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::tidegate::assertion_failed(__FILE__, __LINE__, #condition, message))

// Marks a branch that no input can reach.
#define TIDEGATE_UNREACHABLE(message) ::tidegate::assertion_failed(__FILE__, __LINE__, "unreachable", message)
