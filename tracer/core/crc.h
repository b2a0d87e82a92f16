/* CRC-32 as zlib computes it, usable in a signal handler. */
#ifndef VCHAN_TRACER_CRC_H
#define VCHAN_TRACER_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Fill the tables; before the first vt_crc32. */
void vt_crc32_init(void);
uint32_t vt_crc32(const uint8_t *data, size_t bytes);

#endif
