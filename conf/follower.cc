#include "conf/follower.h"
