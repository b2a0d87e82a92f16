/* The registers that a program may lose while its domain is switched away. */
#ifndef VCHAN_SELFTEST_REGISTERS_H
#define VCHAN_SELFTEST_REGISTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Fill x87, SSE, general and, where Linux keeps them, AVX registers with random values, sleep in
 * the kernel for `sleep_ns`, and compare. `random` is the generator's state and is moved on.
 * Returns false, with the first register that changed in `message`, if one did.
 */
bool registers_hold(uint64_t *random, long sleep_ns, char *message, size_t message_bytes);

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators". */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

#endif
