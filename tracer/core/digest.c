#include "digest.h"

#define MODULUS ((UINT64_C(1) << 61) - 1)
#define STEP 32

typedef unsigned __int128 wide;

/* The base to the power of its place. The base is any odd number below the modulus. */
static const uint64_t powers[STEP + 1] = {
    UINT64_C(0x0000000000000001), UINT64_C(0x1b8f3a6d94c7e52d), UINT64_C(0x1a8b7d0faa4149ca),
    UINT64_C(0x1c35c6cc4762ea6e), UINT64_C(0x0651bb94ab5c6c47), UINT64_C(0x01c909257c0531f2),
    UINT64_C(0x169a41d62b83e4a4), UINT64_C(0x14af0f4414d6b52f), UINT64_C(0x15eefd36874e6dac),
    UINT64_C(0x1a564ae7766aa3a2), UINT64_C(0x0535fbfeae761ed2), UINT64_C(0x01cf98425fbcc100),
    UINT64_C(0x174a1f1394b86318), UINT64_C(0x0f73984a7ac7b287), UINT64_C(0x189e941edcc831db),
    UINT64_C(0x0e12d82ff051e403), UINT64_C(0x1438b1785c262294), UINT64_C(0x0cb6233f61159ec9),
    UINT64_C(0x0058940cae9e8780), UINT64_C(0x0bcfbce1dd408601), UINT64_C(0x0186f6eff7dff0fe),
    UINT64_C(0x1f9b15bae64909b8), UINT64_C(0x046b62aadeaa7d3e), UINT64_C(0x04189abfb5cf6ad8),
    UINT64_C(0x1c97754e5762719d), UINT64_C(0x1df440013e40a3cd), UINT64_C(0x19167852f593f1a5),
    UINT64_C(0x0d8f4ef612a02f9d), UINT64_C(0x043e899a0173ad0e), UINT64_C(0x0b92929d149c9f53),
    UINT64_C(0x1b0cf71491b8cfce), UINT64_C(0x1fac1e483124c5b6), UINT64_C(0x0e43c390194b165c),
};

/* Modulo 2^61 - 1 the upper bits count as much as the lower ones. Of numbers up to 2^124. */
static inline uint64_t reduced(wide value)
{
    uint64_t sum = ((uint64_t)value & MODULUS) + (uint64_t)(value >> 61);

    sum = (sum & MODULUS) + (sum >> 61);
    return sum >= MODULUS ? sum - MODULUS : sum;
}

/* The digest of what has this one and `count` bytes more, STEP at most. */
static inline uint64_t with(uint64_t digest, const uint8_t *bytes, size_t count)
{
    wide sum = 0;

    /* Without branches: what is known of the bytes need not wait for the digest before them. */
#pragma GCC unroll 32
    for (size_t i = 0; i < count; i++)
        sum += (wide)powers[count - 1 - i] * (bytes[i] + 1u);
    return reduced(sum + (wide)digest * powers[count]);
}

uint64_t vt_digest(const uint8_t *bytes, size_t count)
{
    uint64_t digest = 0;

    for (; count >= STEP; bytes += STEP, count -= STEP)
        digest = with(digest, bytes, STEP);
    return with(digest, bytes, count);
}
