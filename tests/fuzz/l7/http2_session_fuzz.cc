// SPDX-License-Identifier: Apache-2.0
// Http2Session accepts and refuses what nghttp2 does, as server and as client (tests/unit/l7/http2_judge.h). Input: the
// choices of the judge, one byte each.
#include <cstdio>
#include <cstdlib>

#include "tests/unit/l7/http2_judge.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string difference = tidegate::l7::judge_http2(data, size);
  if (difference.empty()) return 0;
  std::fprintf(stderr, "%s\n", difference.c_str());
  std::abort();
}
