/* Faults that the test bed injects: the n-th event of a kind is not sent. */
#ifndef VCHAN_TRACER_INJECT_H
#define VCHAN_TRACER_INJECT_H

#include <stdint.h>

#include "tracer.h"

#define VT_RULES_MAX 16

/* Replace all rules and start counting. */
void vt_inject_set(const struct vt_rule *rules, unsigned count);

/* A notify is about to be sent: the number of the rule that drops it, or -1. */
int vt_inject_on_notify(uint8_t cleared_bits);

#endif
