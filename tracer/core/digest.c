#include "digest.h"
#include <string.h>

#define WORD 8
#define LANES 4
#define STEP (LANES * WORD)

/* What 2^64 is modulo 2^64 - 59, and 2^256. */
#define CARRY 59u
#define STRIDE (CARRY * CARRY * CARRY * CARRY)

typedef unsigned __int128 wide;

/* Modulo 2^64 - 59, as a number of 64 bits. Of numbers below 2^100. */
static inline uint64_t reduced(wide value)
{
    wide once = (wide)(uint64_t)value + (uint64_t)(value >> 64) * CARRY;

    return (uint64_t)once + (uint64_t)(once >> 64) * CARRY;
}

static inline uint64_t word_at(const uint8_t *bytes)
{
    uint64_t word;

    memcpy(&word, bytes, sizeof(word));
    return __builtin_bswap64(word);
}

/* Four words at a time, which need not wait for each other. */
static uint64_t of_steps(const uint8_t *bytes, size_t steps)
{
    uint64_t lanes[LANES] = { 0 };
    uint64_t sum = 0;

    for (; steps; bytes += STEP, steps--) {
#pragma GCC unroll 4
        for (int i = 0; i < LANES; i++)
            lanes[i] = reduced((wide)lanes[i] * STRIDE + word_at(bytes + WORD * i));
    }
    for (int i = 0; i < LANES; i++)
        sum = reduced((wide)sum * CARRY + lanes[i]);
    return sum;
}

uint64_t vt_digest(const uint8_t *bytes, size_t count)
{
    size_t steps = count / STEP;
    uint64_t digest = of_steps(bytes, steps);

    bytes += steps * STEP;
    count -= steps * STEP;
    for (; count >= WORD; bytes += WORD, count -= WORD)
        digest = reduced((wide)digest * CARRY + word_at(bytes));
    for (; count; bytes++, count--)
        digest = reduced(((wide)digest << 8) + *bytes);
    return digest >= 0 - (uint64_t)CARRY ? digest + CARRY : digest;
}
