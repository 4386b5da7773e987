#include "conf/document.h"
