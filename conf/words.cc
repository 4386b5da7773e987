#include "conf/words.h"
