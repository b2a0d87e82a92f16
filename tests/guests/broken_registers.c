/* In the place of the processor: what it returns differs from what went in by one bit. */
#include <time.h>

void registers_hold_in_cpu(unsigned char *area, const struct timespec *sleep, int has_avx)
{
	(void)sleep;
	(void)has_avx;
	area[BROKEN_BYTE] ^= 4;
}
