/* One access to a decoy: decoded, done on the real page, written down cell by cell. */
#ifndef VCHAN_TRACER_ACCESS_H
#define VCHAN_TRACER_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "channels.h"
#include "decode.h"
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

/*
 * One access of the translated code: its instruction, and where that stands in the library.
 *
 * An instruction that the emulation does not know runs on the stack: then there is a site before it,
 * which loads, and one behind it, which stores.
 */
enum vt_phase { VT_WHOLE = 0, VT_BEFORE, VT_BEHIND };

struct vt_site {
    struct vt_instruction instruction; /* of a whole one */
    uint32_t offset;
    uint8_t phase;
    uint8_t odd_bytes; /* to be loaded or stored; 0: none */
};

#define VT_ODD_BYTES_MAX 32
#define VT_ODD_ROOM_BYTES 64 /* of the stack: the operand, then its place */

/*
 * Do the access of a site, `distance` bytes behind the first decoy. False where no page is there
 * (any more): then nothing was done. Called by stubs, through trampoline.c.
 */
bool vt_access_translated(const struct vt_site *site, struct vt_registers *registers,
                          size_t distance);

/* Whether an access may come as a fault: one has, or what would have caught it is not there. */
bool vt_faults_are_due(void);

/* memset on decoy memory, as `rep stos` is written down. `bytes` end within the page. */
void vt_access_fill(struct vt_channel *channel, uint32_t site, unsigned offset, uint8_t value,
                    size_t bytes);

/* Forget which instruction stands where: libraries may have been loaded anew. */
void vt_access_forget_code(void);

/* Offset of a code address in libxenvchan; false and 0 if it lies elsewhere. */
bool vt_site_of(const void *code, uint32_t *site);

#endif
