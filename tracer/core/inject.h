/*
 * Faults that the test bed injects: the n-th event of a kind is not sent, or the n-th call of a kind
 * is held before one of its accesses until the peer has come to where it is wanted.
 */
#ifndef VCHAN_TRACER_INJECT_H
#define VCHAN_TRACER_INJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "channels.h"
#include "log.h"
#include "tracer.h"

#define VT_RULES_MAX 16

/* Replace all rules and start counting; `held_fd` is an eventfd that tells of each hold. */
void vt_inject_set(const struct vt_rule *rules, unsigned count, int held_fd);

/* A notify is about to be sent: the number of the rule that drops it, or -1. */
int vt_inject_on_notify(uint8_t cleared_bits);

/* A call of the kind (enum vt_call) begins: the rules that hold an access of it, a bit each. */
uint16_t vt_inject_on_call(uint8_t call);

/*
 * The thread is about to make an access of its call, whose `holds` are not 0. If one of them means
 * this one it returns when that is over, with what the access's record has to say of it: flags.
 */
uint16_t vt_inject_on_access(struct vt_thread *thread, const struct vt_channel *channel,
                             uint32_t site, unsigned offset, unsigned width, bool is_load);

#endif
