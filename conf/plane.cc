#include "conf/plane.h"
