/*
 * What the digest of a copy costs: nanoseconds of processor time for copies of some sizes, without
 * the copy, the median of some turns. One line each: bytes, nanoseconds. To be compiled with
 * tracer/core/digest.c.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "digest.h"

#define TURNS 9
#define BYTES_A_TURN (8u << 20)
#define BYTES_MAX 65536

static uint8_t data[BYTES_MAX];

static double processor_nanoseconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int by_value(const void *first, const void *second)
{
    double a = *(const double *)first, b = *(const double *)second;

    return (a > b) - (a < b);
}

int main(void)
{
    static const size_t sizes[] = { 8, 64, 1024, BYTES_MAX };
    volatile uint64_t kept = 0;

    for (size_t i = 0; i < BYTES_MAX; i++)
        data[i] = (uint8_t)(i * 37);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
        size_t copies = BYTES_A_TURN / sizes[s];
        double costs[TURNS];

        for (int turn = 0; turn < TURNS; turn++) {
            double start = processor_nanoseconds();

            for (size_t i = 0; i < copies; i++)
                kept += vt_digest(data, sizes[s]);
            costs[turn] = (processor_nanoseconds() - start) / (double)copies;
        }
        qsort(costs, TURNS, sizeof(*costs), by_value);
        printf("%zu %.1f\n", sizes[s], costs[TURNS / 2]);
    }
    return 0;
}
