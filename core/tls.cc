#include "core/tls.h"
