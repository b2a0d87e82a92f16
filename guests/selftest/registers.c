#include "registers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define EXPONENT_OF_ONE 0x3fff
#define MANTISSA_TOP_BIT (UINT64_C(1) << 63)

/* With the top bit set and 1.0's exponent any mantissa is a plain number: x87 changes none. */
struct x87 {
	uint64_t mantissa;
	uint64_t exponent;
};

struct area {
	uint64_t xmm[16][2];
	uint64_t ymm_high[16][2];
	uint64_t general[5];
	uint64_t unused;
	struct x87 x87[8];
};

_Static_assert(offsetof(struct area, ymm_high) == 256, "as in registers.S");
_Static_assert(offsetof(struct area, general) == 512, "as in registers.S");
_Static_assert(offsetof(struct area, x87) == 560, "as in registers.S");

void registers_hold_in_cpu(struct area *area, const struct timespec *sleep, int has_avx);

static struct area random_area(uint64_t *random)
{
	struct area area = { .unused = 0 };

	for (size_t n = 0; n < 16; n++)
		for (size_t half = 0; half < 2; half++) {
			area.xmm[n][half] = random_next(random);
			area.ymm_high[n][half] = random_next(random);
		}
	for (size_t n = 0; n < 5; n++)
		area.general[n] = random_next(random);
	for (size_t n = 0; n < 8; n++)
		area.x87[n] = (struct x87){ random_next(random) | MANTISSA_TOP_BIT,
					    EXPONENT_OF_ONE };
	return area;
}

static bool differ(const void *due, const void *seen, size_t bytes, const char *name, size_t number,
		   char *message, size_t message_bytes)
{
	if (memcmp(due, seen, bytes) == 0)
		return false;
	snprintf(message, message_bytes, "registers: %s%zu did not hold over a sleep", name,
		 number);
	return true;
}

bool registers_hold(uint64_t *random, long sleep_ns, char *message, size_t message_bytes)
{
	static const size_t general_names[5] = { 3, 12, 13, 14, 15 };
	const struct area due = random_area(random);
	const struct timespec sleep = { .tv_sec = 0, .tv_nsec = sleep_ns };
	struct area seen = due;
	bool changed = false;

	registers_hold_in_cpu(&seen, &sleep, __builtin_cpu_supports("avx"));
	for (size_t n = 0; n < 16 && !changed; n++)
		changed = differ(due.xmm[n], seen.xmm[n], sizeof(due.xmm[n]), "xmm", n, message,
				 message_bytes) ||
			  differ(due.ymm_high[n], seen.ymm_high[n], sizeof(due.ymm_high[n]),
				 "upper half of ymm", n, message, message_bytes);
	for (size_t n = 0; n < 8 && !changed; n++)
		changed = differ(&due.x87[n], &seen.x87[n], sizeof(due.x87[n]), "x87 register ", n,
				 message, message_bytes);
	for (size_t n = 0; n < 5 && !changed; n++)
		changed = differ(&due.general[n], &seen.general[n], sizeof(due.general[n]),
				 "general register ", general_names[n], message, message_bytes);
	return !changed;
}
