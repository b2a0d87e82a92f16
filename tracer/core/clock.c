#include "clock.h"

#include <cpuid.h>
#include <string.h>
#include <time.h>

#include "tracer.h"

#define HYPERVISOR_LEAF 0x40000000u
#define HYPERVISOR_LEAF_END 0x40010000u

bool vt_order_kept;

/* Leaf 3 of Xen's own: ecx has the guest's TSC in kHz (xen/include/public/arch-x86/cpuid.h). */
static uint64_t told_by_xen(void)
{
    unsigned a, b, c, d, leaf;

    __cpuid(1, a, b, c, d);
    if (!(c & 1u << 31)) /* no hypervisor */
        return 0;
    for (leaf = HYPERVISOR_LEAF; leaf < HYPERVISOR_LEAF_END; leaf += 0x100) {
        __cpuid(leaf, a, b, c, d);
        if (!memcmp(&b, "XenV", 4) && !memcmp(&c, "MMXe", 4) && !memcmp(&d, "nVMM", 4)) {
            __cpuid_count(leaf + 3, 0, a, b, c, d);
            return (uint64_t)c * 1000;
        }
    }
    return 0;
}

uint64_t vt_clock_told_hz(void)
{
    unsigned denominator, numerator, crystal_hz, unused;

    if (__get_cpuid(0x15, &denominator, &numerator, &crystal_hz, &unused) && denominator &&
        numerator && crystal_hz)
        return (uint64_t)crystal_hz * numerator / denominator;
    return told_by_xen();
}

void vt_clock_pair(uint64_t *ticks, uint64_t *nanoseconds)
{
    uint64_t narrowest = ~0ull;

    /* The narrowest of some pairs of stamps around one reading. */
    for (unsigned i = 0; i < 32; i++) {
        struct timespec now;
        uint64_t before = vt_stamp_before(), after;

        clock_gettime(CLOCK_MONOTONIC, &now);
        after = vt_stamp_after();
        if (after - before >= narrowest)
            continue;
        narrowest = after - before;
        *ticks = before + narrowest / 2;
        *nanoseconds = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
}
