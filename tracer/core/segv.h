/* SIGSEGV: an access to a decoy is done elsewhere, every other fault is somebody else's. */
#ifndef VCHAN_TRACER_SEGV_H
#define VCHAN_TRACER_SEGV_H

#include <signal.h>
#include <stdbool.h>

/*
 * Take the signal, if somebody else has it; what he had is called for faults that are not ours.
 * Cheap enough to be asked again at each call: faulthandler, for one, can be switched on at any
 * time, and would take an access to a decoy for a crash. 0 or a negative errno.
 */
int vt_segv_take(void);

/*
 * sigaction(SIGSEGV) of a program that knows nothing of us: what it sets is called for faults that are
 * not ours, and what it asks is what it set. False if we do not have the signal: then it is the
 * kernel's matter.
 */
bool vt_segv_set(const struct sigaction *action, struct sigaction *before);

/* sigaction itself, for whoever stands in for it. */
extern int (*vt_sigaction)(int, const struct sigaction *, struct sigaction *);

/*
 * Let the signal through to this thread: a fault whose signal is blocked ends the process. True if
 * it was blocked; then vt_segv_block puts that back.
 */
bool vt_segv_unblock(void);
void vt_segv_block(void);

#endif
