#include "conf/snapshot.h"
