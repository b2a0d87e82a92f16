/*
 * Which step of the spec a thread is about to take: the spec's table of records, read one access
 * ahead. The table comes from specs/libxenvchan.records.yaml (guests/fault_steps.py makes the rows).
 *
 * The table says of some loads that the last one before the thread goes on is the one that decides.
 * That is not known before they are made, so here all of them together are one step: it begins with
 * the first one.
 */
#ifndef VCHAN_TRACER_STEPS_H
#define VCHAN_TRACER_STEPS_H

#include <stdbool.h>
#include <stdint.h>

#include "tracer.h"

#define VT_STEP_ROWS_MAX 1024
#define VT_ACTIONS_MAX 64
#define VT_STEP_NO_CELL 255

/* What a thread has done last, as far as it matters for its next step. All 0 at the start. */
struct vt_follow {
    uint8_t last;   /* action */
    uint8_t owed;   /* action that its next load at `owed_at` shows, because an earlier one needs it */
    uint8_t owed_at;
    uint8_t looks;  /* action whose loads at `looks_at` go on, 0: none */
    uint8_t looks_at;
};

struct vt_step {
    uint8_t action; /* 0: none */
    bool more;      /* a further load of a step that has begun */
    const struct vt_step_row *row; /* NULL where no row was asked */
};

void vt_steps_set(const struct vt_step_row *rows, unsigned count);

/* The step of a record of the kind (enum vt_kind) in a call; `offset` is VT_STEP_NO_CELL for none. */
struct vt_step vt_step_at(const struct vt_follow *follow, uint8_t call, uint8_t kind,
                          uint8_t offset);

/* Behind a record of the kind the thread has acted on what it has looked at. */
bool vt_step_goes_on(uint8_t kind);

/* It has been taken. */
void vt_step_taken(struct vt_follow *follow, struct vt_step step, uint8_t kind, uint8_t offset);

#endif
