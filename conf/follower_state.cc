#include "conf/follower_base.h"

namespace tidegate {}  // namespace tidegate
