/* What Python sees of the core. build_core.py hands the declarations below to cffi as they are. */
#ifndef VCHAN_TRACER_TRACER_H
#define VCHAN_TRACER_TRACER_H

#include <stdint.h>

/*
 * A row of the spec's table of records: which action a record shows. Actions have numbers from 1 on
 * (below 64), 0 is one that decides nothing; the first row that fits counts.
 */
struct vt_step_row {
    uint64_t after;  /* the thread's last action is one of these, a bit each; 0: whatever it is */
    uint16_t calls;  /* enum vt_call, a bit each */
    uint8_t kind;    /* enum vt_kind */
    uint8_t offset;  /* of the cell in the shared page; 255: a record of no cell */
    uint8_t action;
    uint8_t decides; /* further loads of the cell belong to it, until the thread goes on */
    /* Behind first_last[i] an earlier step is due, first_action[i]: the next load at first_offset[i]. */
    uint8_t first_last[2];
    uint8_t first_action[2];
    uint8_t first_offset[2];
};

/*
 * A fault (enum vt_fault), or kind 0: only to be told of, when it has been done. It happens at the
 * `nth` (from 1) time that this process takes the step `action`, counted from when it has taken
 * `behind` `behind_nth` times.
 */
struct vt_rule {
    uint64_t nanoseconds_max; /* of a delay: how long it lasts, or how long at most */
    uint32_t kind;
    uint32_t nth;
    uint32_t behind_nth;
    uint32_t value;           /* to be carried instead, or of the cell that is waited for */
    uint8_t action;
    uint8_t behind;
    uint8_t is_mask;          /* `value` is to be xor'ed in */
    uint8_t waits;            /* 0: for the time alone, 1: for vt_release(), 2: for the cell */
    uint8_t until_offset;     /* the cell: it has the value, or as an index has come that far */
};

/*
 * What became of a fault: 0 nothing yet, 1 it holds its step now, 2 done, 3 in vain: what it waited
 * for did not come, or there was no earlier value.
 */
struct vt_fault_look {
    uint32_t state;
};

/* A step of this end in a schedule: its number among the steps of both ends, from 1 on. */
struct vt_turn {
    uint32_t number;
    uint8_t action;
};

/*
 * How this end follows its schedule: the number of its newest step that is over (0: none), and the
 * action that it came to instead of its next one (0: none).
 */
struct vt_schedule_look {
    uint32_t over;
    uint32_t astray;
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

/* Before vt_start(): the table by which its rules find their steps. */
void vt_know_steps(const struct vt_step_row *rows, uint32_t count);

/*
 * The step that fault `number` holds goes on, now or as soon as it comes: what it waits for has
 * come, or (is_there 0) will not.
 */
void vt_release(uint32_t number, int is_there);

/* The peer does nothing any more: whatever waits for it looks once more, and then goes on in vain. */
void vt_peer_is_over(void);

/*
 * Before vt_start(): this end's steps in a schedule, at most 4096; with `gates_init` those of its init
 * are among them, and with -1 there is no schedule.
 */
void vt_keep_schedule(const struct vt_turn *turns, uint32_t count, int gates_init);

/* Steps of this end up to the number may be taken; nothing is held any more. */
void vt_grant(uint32_t number);
void vt_schedule_is_over(void);
void vt_look_schedule(struct vt_schedule_look *look);

/*
 * Trace from now on, into the open file `fd` that begins with `header` (4096 bytes) and has room
 * for `blocks_max` blocks. `doorbell_fd` is rung when a block is full, `held_fd` when a fault begins
 * to hold an access and when vt_look_schedule() shows something new; both are eventfds. 0, or a negative errno; then vt_problem() says more.
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
