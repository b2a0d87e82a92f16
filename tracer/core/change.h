/*
 * One access of which a fault changes what it does: the library gets, or means to have stored, one
 * value, and the page has another.
 */
#ifndef VCHAN_TRACER_CHANGE_H
#define VCHAN_TRACER_CHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "decode.h"
#include "emulate.h"
#include "inject.h"
#include "registers.h"

/*
 * Do `instruction` on the page's cell at `cell`, changed as `effect` says; `earlier` is what a STALE
 * load gets. *access is what the library saw, *in_page what the cell held of a load, or holds now.
 * Registers and flags are as after the access that the library sees.
 */
void vt_change(const struct vt_effect *effect, uint64_t earlier,
               const struct vt_instruction *instruction, struct vt_registers *registers, void *cell,
               struct vt_access *access, uint64_t *in_page);

#endif
