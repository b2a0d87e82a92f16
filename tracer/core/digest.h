/*
 * A digest of bytes that can be put together: that of a ++ b follows from those of a and b.
 *
 * The bytes are the digits of a number to the base 256, modulo the prime 2^64 - 59:
 *
 *     digest(a ++ b) = digest(a) * 256 ^ length(b) + digest(b)
 *
 * So what was copied in parts at one end can be held against what was copied in other parts at the
 * other end, wherever both have come to the same position. Of streams that a fault makes different,
 * one in about 2^64 has the same digest. validate/digest.py puts them together.
 */
#ifndef VCHAN_TRACER_DIGEST_H
#define VCHAN_TRACER_DIGEST_H

#include <stddef.h>
#include <stdint.h>

uint64_t vt_digest(const uint8_t *bytes, size_t count);

#endif
