/*
 * A flight recorder: each thread's records go round in a ring of its own, until they are frozen. Then
 * nothing is written over any more, and what comes later is counted and left out.
 *
 * It is frozen once: by a signal (vt_log_freeze from its handler), by the settle time in which no record
 * came, or by the word `request` in the header page, which any process that can write the file sets to
 * 1. The keeper looks for the last two.
 */
#ifndef VCHAN_TRACER_FLIGHT_H
#define VCHAN_TRACER_FLIGHT_H

#include <stdatomic.h>
#include <stdbool.h>

enum vt_frozen_by {
    VT_FROZEN_BY_SIGNAL = 1,
    VT_FROZEN_BY_SETTLING = 2,
    VT_FROZEN_ON_REQUEST = 3,
};

/* What was seen when it was frozen by the settle time: bits of the header's `look`. */
#define VT_LOOK_TAKEN 1
#define VT_LOOK_ASLEEP 2    /* at its beginning and its end each thread slept in the kernel */
#define VT_LOOK_SAME_PAGE 4 /* and the page, which the header has, was the same */
#define VT_LOOK_READABLE 8  /* the event descriptor was readable at its end */
#define VT_LOOK_ALONE 16    /* one channel was open */

/* Whether it is frozen: read for each record. */
extern _Atomic bool vt_flight_is_frozen;

/* A new trace: nothing is frozen. */
void vt_flight_begin(void);

/* Freeze what is being recorded, if it is a flight recorder. Callable from a signal handler. */
void vt_flight_freeze(enum vt_frozen_by by);

/* The keeper's: is there a request, has it settled? */
void vt_flight_watch(void);

#endif
