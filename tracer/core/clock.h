/*
 * Time stamps around an access.
 *
 * lfence waits until the loads before it are done, and nothing behind it starts earlier: without
 * the fences the stamp of a load may be taken before the load has its value.
 */
#ifndef VCHAN_TRACER_CLOCK_H
#define VCHAN_TRACER_CLOCK_H

#include <stdint.h>

static inline uint64_t vt_stamp_before(void)
{
    uint32_t low, high;

    __asm__ __volatile__("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return low | (uint64_t)high << 32;
}

static inline uint64_t vt_stamp_after(void)
{
    uint32_t low, high;

    __asm__ __volatile__("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
    return low | (uint64_t)high << 32;
}


#endif
