/*
 * This end's part of a schedule: a step of the spec is taken when it is its turn, and not before.
 *
 * The steps of both ends are numbered through from 1 on. Whoever knows both ends grants turns (of this
 * end up to a number), and is told when one of them is over and when this end comes to another
 * step than its next one. A step that loads decide is over when the thread goes on: only
 * then is it known which of them was the last.
 */
#ifndef VCHAN_TRACER_SCHEDULE_H
#define VCHAN_TRACER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "inject.h"

#define VT_TURNS_MAX 4096

/* Whether there is one. Set before recording starts. */
extern bool vt_has_schedule;

/* Before a recording; `bell_fd` is an eventfd that tells of what vt_look_schedule() shows. */
void vt_schedule_set(int bell_fd);

/* Before a moment, which is the `step`: holds the thread until it is its turn. */
void vt_schedule_before(const struct vt_moment *moment, const struct vt_step *step);

/* Behind it, when its record is there; false: it was not that step after all. */
void vt_schedule_after(const struct vt_moment *moment, const struct vt_step *step, bool is_done);

#endif
