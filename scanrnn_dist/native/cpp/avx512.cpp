#define NAMESPACE avx512
#include "kernel.h"
