/*
 * Time stamps around an access.
 *
 * lfence waits until the loads before it are done, and nothing behind it starts earlier: without
 * the fences the stamp of a load may be taken before the load has its value.
 */
#ifndef VCHAN_TRACER_CLOCK_H
#define VCHAN_TRACER_CLOCK_H

#include <stdbool.h>
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

/*
 * No load behind it is done before the stamp; loads before it may be done later. It is not taken
 * before a stamp that vt_stamp_after() has taken.
 */
static inline uint64_t vt_stamp_of_beginning(void)
{
    uint32_t low, high;

    __asm__ __volatile__("rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
    return low | (uint64_t)high << 32;
}

/*
 * Whether the order of the library's accesses is left to the processor, as it is without a tracer:
 * then there is no time stamp, no fence and no locked instruction between two of them, but those of
 * the library itself. Set before recording starts. An access that comes as a signal is ordered by
 * that, so it has its stamps all the same.
 */
extern bool vt_order_kept;

/* The stamps around what is not an access and stands between two: 0 if the order is kept. */
static inline uint64_t vt_between_before(void)
{
    return vt_order_kept ? 0 : vt_stamp_before();
}

static inline uint64_t vt_between_after(void)
{
    return vt_order_kept ? 0 : vt_stamp_after();
}

#endif
