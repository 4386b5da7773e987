// SPDX-License-Identifier: Apache-2.0
// A zone that DNS answers from.
#pragma once

#include <string>

#include "conf/model/common.h"

namespace tidegate {

struct Zone {
  std::string name;  // apex, lower case, with the final dot
  Blob file;         // master file
};

}  // namespace tidegate
