#include "conf/fault.h"
