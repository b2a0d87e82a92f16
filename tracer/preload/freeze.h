/*
 * The signal that freezes a flight recorder. Whatever the program itself has set for it, before or later,
 * is done as well; where it has set nothing the signal does no more than freeze.
 */
#ifndef VCHAN_TRACER_FREEZE_H
#define VCHAN_TRACER_FREEZE_H

#include <signal.h>
#include <stdbool.h>

/* Take the signal. 0 or a negative errno. */
int freeze_take(int number);

/*
 * sigaction() of the program for the signal: what it sets is called behind the freeze, and what it asks
 * is what it set. False if it is not the signal that was taken: then it is the kernel's matter.
 */
bool freeze_set(int number, const struct sigaction *action, struct sigaction *before);

#endif
