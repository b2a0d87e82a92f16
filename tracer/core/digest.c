#include "digest.h"
#include <string.h>

#define WORD 8
#define WORDS 8
#define STEP (WORDS * WORD)

/* What 2^64 is modulo 2^64 - 59, and its powers. */
#define CARRY 59ull
#define CARRY_2 (CARRY * CARRY)
#define CARRY_4 (CARRY_2 * CARRY_2)
#define CARRY_8 (CARRY_4 * CARRY_4)

typedef unsigned __int128 wide;

/*
 * Modulo 2^64 - 59, as a number of 64 bits. Of numbers below 2^122: what is carried the first time is
 * below 2^64 - 59 then, and the second time there is no carry.
 */
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

static inline wide product(const uint8_t *bytes, uint64_t factor)
{
    return (wide)word_at(bytes) * factor;
}

/*
 * Eight words, each by what it counts, below 2^107: the powers are so small that nothing needs to be
 * reduced in between, and the products need not wait for each other.
 */
static inline wide of_step(const uint8_t *bytes)
{
    return product(bytes, CARRY_4 * CARRY_2 * CARRY) + product(bytes + 8, CARRY_4 * CARRY_2) +
           product(bytes + 16, CARRY_4 * CARRY) + product(bytes + 24, CARRY_4) +
           product(bytes + 32, CARRY_2 * CARRY) + product(bytes + 40, CARRY_2) +
           product(bytes + 48, CARRY) + word_at(bytes + 56);
}

uint64_t vt_digest(const uint8_t *bytes, size_t count)
{
    uint64_t digest = 0;

    for (; count >= STEP; bytes += STEP, count -= STEP)
        digest = reduced((wide)digest * CARRY_8 + of_step(bytes));
    for (; count >= WORD; bytes += WORD, count -= WORD)
        digest = reduced((wide)digest * CARRY + word_at(bytes));
    for (; count; bytes++, count--)
        digest = reduced(((wide)digest << 8) + *bytes);
    return digest >= 0 - CARRY ? digest + CARRY : digest;
}
