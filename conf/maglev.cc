#include "conf/maglev.h"
