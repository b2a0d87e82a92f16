/*
 * Faults that the test bed injects, each at the n-th time that a step of the spec is taken here.
 *
 * Asked before and told behind each access, event and call; nothing of it is called, and one branch
 * is taken, where there are no rules.
 */
#ifndef VCHAN_TRACER_INJECT_H
#define VCHAN_TRACER_INJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "channels.h"
#include "log.h"
#include "steps.h"
#include "tracer.h"

#define VT_RULES_MAX 64

/* Whether there is anything to be asked. Set before recording starts. */
extern bool vt_has_rules;

/* Replace all rules and start counting; `bell_fd` is an eventfd that tells of what becomes of them. */
void vt_inject_set(const struct vt_rule *rules, unsigned count, int bell_fd);

/* Something that a thread is about to do. */
struct vt_moment {
    struct vt_thread *thread;
    struct vt_channel *channel;
    uint32_t site;
    uint16_t offset; /* of a whole cell, or VT_NO_OFFSET */
    uint8_t call;    /* enum vt_call */
    uint8_t kind;    /* enum vt_kind that its record is to have */
    uint8_t width;
};

/* What is to become of it instead. */
struct vt_effect {
    struct vt_step step;
    uint16_t flags;  /* for its record */
    uint8_t fault;   /* DROP, REPEAT, STALE or CORRUPT (enum vt_fault), 0: it is done as it is */
    uint8_t number;  /* of the fault in the list */
};

/* Before: holds the thread, or does not return, if a rule says so. */
struct vt_effect vt_inject_before(const struct vt_moment *moment);

/*
 * Behind, when its record is there. `is_done` is false if it was not that step after all (a compare
 * and exchange that failed).
 */
void vt_inject_after(const struct vt_moment *moment, const struct vt_effect *effect, bool is_done);

/* The value that a CORRUPT puts in the place of `value`. */
uint64_t vt_inject_corrupted(const struct vt_effect *effect, unsigned width, uint64_t value);

/* The fault of `effect` is being done to the moment: the page has `in_page`, the record it hits follows. */
void vt_inject_log(const struct vt_moment *moment, const struct vt_effect *effect,
                   uint64_t in_page);

/* It could not be done: the cell never had an earlier value. */
void vt_inject_in_vain(const struct vt_effect *effect);

/* This end has seen or made a value of a cell; what it was before that was another one. */
void vt_inject_saw(struct vt_channel *channel, unsigned offset, uint64_t value);

/* The value before the last change. False if none is known. */
bool vt_inject_earlier(const struct vt_channel *channel, unsigned offset, uint64_t *value);

#endif
