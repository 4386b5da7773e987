#include "conf/state_store.h"
