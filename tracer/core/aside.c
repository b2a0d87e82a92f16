#include <alloca.h>
#include <cpuid.h>
#include <stdint.h>

#include "quiet.h"

#define OSXSAVE (1u << 27)
#define FXSAVE_BYTES 512
#define ALIGNED 64
/* x87, SSE, AVX, and AVX-512 in three parts; tiles and what the kernel keeps for itself are not. */
#define STATES 0xe7u

static unsigned xsave_bytes(void)
{
    static unsigned known; /* the same for every thread, so whoever comes first may write it */
    unsigned a, b, c, d;

    if (known)
        return known;
    __cpuid(1, a, b, c, d);
    if (!(c & OSXSAVE))
        return known = FXSAVE_BYTES;
    __cpuid_count(0xd, 0, a, b, c, d);
    return known = b;
}

void vt_aside(void (*work)(void *), void *argument)
{
    unsigned bytes = xsave_bytes();
    uint8_t *room = alloca(bytes + ALIGNED);
    uint8_t *area = (uint8_t *)(((uintptr_t)room + ALIGNED - 1) & ~(uintptr_t)(ALIGNED - 1));

    if (bytes == FXSAVE_BYTES) {
        __asm__ __volatile__("fxsave64 (%0)" : : "r"(area) : "memory");
        work(argument);
        __asm__ __volatile__("fxrstor64 (%0)" : : "r"(area) : "memory");
        return;
    }
    /* xrstor reads the header, of which xsave writes only a part. */
    for (unsigned i = 0; i < 64; i++)
        area[512 + i] = 0;
    __asm__ __volatile__("xsave64 (%0)" : : "r"(area), "a"(STATES), "d"(0) : "memory");
    work(argument);
    __asm__ __volatile__("xrstor64 (%0)" : : "r"(area), "a"(STATES), "d"(0) : "memory");
}
