#include "core/http1.h"
