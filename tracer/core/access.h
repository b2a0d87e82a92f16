/* One access to a decoy: decoded, done on the real page, written down cell by cell. */
#ifndef VCHAN_TRACER_ACCESS_H
#define VCHAN_TRACER_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "channels.h"
#include "log.h"
#include "registers.h"

enum vt_outcome {
    VT_DONE,        /* go on behind the instruction */
    VT_DONE_PARTLY, /* a string instruction with more to do: go on with it */
    VT_REFUSED,     /* not one of the known forms, or not at this address */
};

/*
 * Do the instruction at `code`, which faulted at `address` in the channel's decoy. *length becomes
 * its length. Works as well when nothing is being recorded.
 */
enum vt_outcome vt_access_at(struct vt_channel *channel, const uint8_t *code, const void *address,
                             struct vt_registers *registers, unsigned *length);

/* memset on decoy memory, as `rep stos` is written down. `bytes` end within the page. */
void vt_access_fill(struct vt_channel *channel, uint32_t site, unsigned offset, uint8_t value,
                    size_t bytes);

/* Forget which instruction stands where: libraries may have been loaded anew. */
void vt_access_forget_code(void);

/* Offset of a code address in libxenvchan; false and 0 if it lies elsewhere. */
bool vt_site_of(const void *code, uint32_t *site);

#endif
