/*
 * The library's code, copied and re-encoded so that an access to a decoy needs no signal.
 *
 * Each instruction that the emulation knows and that may touch the shared page (any memory operand
 * but the stack's) becomes a jump to a stub of its own. That compares the operand's address with
 * the range of the decoys: outside of it the instruction itself is done, inside of it the same
 * routine as the signal handler's does the access and logs it. Nothing is lost where an
 * instruction is left as it is, because a decoy faults as before.
 *
 * An instruction that the emulation does not know (andn, a shift, a vector load) is done by the
 * processor, with its operand on the stack: what it reads is loaded from the page into there before,
 * and what it writes is stored from there behind it.
 */
#ifndef VCHAN_TRACER_TRANSLATE_H
#define VCHAN_TRACER_TRANSLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vt_translation {
    uint32_t functions; /* that were copied */
    uint32_t refused;   /* that run as they were, and fault */
    uint32_t sites;
};

/*
 * Translate the library that vt_find_library() found, unless that was done. 0, or a negative errno
 * when there is no room near it, its functions are not to be found, or memory cannot become code:
 * everything then runs as it was.
 */
int vt_translate_library(struct vt_translation *done);

/* From now on calls go to the library's own code. A copy that is there stays. */
void vt_translate_nothing(void);

/* Whether some of the library has a copy that is in use. */
bool vt_is_translated(void);

/* Whether all of the library that may touch the page has a copy that is in use. */
bool vt_is_translated_whole(void);

/* Where the copy of the function at `code` begins; `code` itself if it has none. */
void *vt_translated_code(void *code);

/*
 * Where an instruction that the emulation does not know can be done: a copy at which to go on, with
 * all registers as they are. NULL if there is none.
 */
const void *vt_translated_odd(const void *code);

/*
 * The address in the library that `code`, an address in the copy, stands for; `code` itself if it
 * is not in the copy.
 */
uintptr_t vt_original_code(const void *code);

#endif
