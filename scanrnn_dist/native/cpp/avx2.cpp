#define NAMESPACE avx2
#include "kernel.h"
