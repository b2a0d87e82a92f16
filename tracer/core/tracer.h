/* What Python sees of the core. build_core.py hands the declarations below to cffi as they are. */
#ifndef VCHAN_TRACER_TRACER_H
#define VCHAN_TRACER_TRACER_H

#include <stdint.h>

/*
 * A fault. kind 1, drop_notify: the `nth` notify (from 1) whose test-and-clear took one of `bits`
 * out (0: any notify) is not sent.
 *
 * kind 2, hold: in the `nth` call of the kind `call` the first access to the cell at `offset` (that
 * is a load: 1, that changes it: 2, any: 0) is not made before the cell at `until_offset` holds
 * `until_value` (an index: has come that far), or `nanoseconds_max` have passed.
 */
struct vt_rule {
    uint32_t kind;
    uint32_t nth;
    uint64_t nanoseconds_max;
    uint32_t until_value;
    uint8_t bits;
    uint8_t call; /* enum vt_call */
    uint8_t offset;
    uint8_t access;
    uint8_t until_offset;
};

/* What became of a fault: 0 nothing yet, 1 it holds an access now, 2 done, 3 held in vain. */
struct vt_fault_look {
    uint32_t state;
};

struct vt_channel_look {
    uint32_t number;
    int is_server;
    int event_fd; /* -1: none */
    int has_page;
    uint8_t page[24];
};

struct vt_call_look {
    uint32_t tid;
    uint32_t call; /* enum vt_call */
    uint32_t channel;
    int held; /* it sleeps, because a fault holds it */
};

/* Text about the libxenvchan of this process: soname and build id; NULL if none is loaded. */
const char *vt_library_name(void);

/* How accesses are caught, and what stands between them; what came of it. */
struct vt_manner {
    int translate;  /* by a translation of the library where it can be had, else by signals */
    int keep_order; /* nothing is put between two accesses that orders them */
    int calls_only; /* nothing but calls and events is recorded; accesses are left alone */
};

struct vt_translated {
    int is_there;
    uint32_t functions; /* translated */
    uint32_t refused;   /* functions that could not be */
    uint32_t sites;     /* instructions that may be accesses */
};

/*
 * Trace from now on, into the open file `fd` that begins with `header` (4096 bytes) and has room
 * for `blocks_max` blocks. `doorbell_fd` is rung when a block is full, `held_fd` when a fault begins
 * to hold an access; both are eventfds. 0, or a negative errno; then vt_problem() says more.
 */
int vt_start(int fd, const uint8_t *header, uint32_t blocks_max, int doorbell_fd, int held_fd,
             const struct vt_rule *rules, uint32_t rule_count);

/*
 * Before vt_start(): say how to trace. *done becomes what there is of a translation; without one
 * vt_problem() says why. 0, or a negative errno if nothing can be traced.
 */
int vt_prepare(const struct vt_manner *manner, struct vt_translated *done);
const char *vt_problem(void);

/*
 * Stand in for the library's functions and take SIGSEGV, without recording yet; vt_start() does it,
 * too. 0, or a negative errno; then vt_problem() says more.
 */
int vt_catch(void);

/* End the trace. Blocks that were used. Channels that are still open go on without records. */
uint32_t vt_stop(void);

/* Write down what a payload that was read says of itself. */
void vt_payload(uint64_t position, uint64_t bytes, int mismatch);

/* Channels that are open, calls that threads are in, the faults: at most `max`; how many. */
uint32_t vt_look_channels(struct vt_channel_look *looks, uint32_t max);
uint32_t vt_look_calls(struct vt_call_look *looks, uint32_t max);
uint32_t vt_look_faults(struct vt_fault_look *looks, uint32_t max);
uint64_t vt_look_records(void);

/* Ticks a second as the processor or the hypervisor says; 0 if neither does. */
uint64_t vt_clock_told_hz(void);

/* The time stamp counter and the monotonic clock at the same moment, as near as can be. */
void vt_clock_pair(uint64_t *ticks, uint64_t *nanoseconds);

#endif
