#include "core/http_server.h"
