// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/control/import_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidegate::cli::fuzz_import(tidegate::cli::import_nginx, data, size);
  return 0;
}
