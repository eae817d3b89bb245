#define NAMESPACE neon
#include "kernel.h"
