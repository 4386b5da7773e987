#include "cache/body.h"
#include "cache/cache.h"
