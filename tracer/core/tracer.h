/* What Python sees of the core. build_core.py hands the declarations below to cffi as they are. */
#ifndef VCHAN_TRACER_TRACER_H
#define VCHAN_TRACER_TRACER_H

#include <stdint.h>

/* Drop the `nth` notify (from 1) whose test-and-clear took one of `bits` out; 0: any notify. */
struct vt_rule {
    uint32_t nth;
    uint8_t bits;
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
};

/* Text about the libxenvchan of this process: soname and build id; NULL if none is loaded. */
const char *vt_library_name(void);

/*
 * Trace from now on, into the open file `fd` that begins with `header` (4096 bytes) and has room
 * for `blocks_max` blocks. 0, or a negative errno; then vt_problem() says more.
 */
int vt_start(int fd, const uint8_t *header, uint32_t blocks_max, int doorbell_fd,
             const struct vt_rule *rules, uint32_t rule_count);
const char *vt_problem(void);

/* End the trace. Blocks that were used. Channels that are still open go on without records. */
uint32_t vt_stop(void);

/* Write down what a payload that was read says of itself. */
void vt_payload(uint64_t position, uint64_t bytes, int mismatch);

/* Channels that are open, calls that threads are in, records: at most `max`; how many. */
uint32_t vt_look_channels(struct vt_channel_look *looks, uint32_t max);
uint32_t vt_look_calls(struct vt_call_look *looks, uint32_t max);
uint64_t vt_look_records(void);

/* Ticks a second as the processor or the hypervisor says; 0 if neither does. */
uint64_t vt_clock_told_hz(void);

/* The time stamp counter and the monotonic clock at the same moment, as near as can be. */
void vt_clock_pair(uint64_t *ticks, uint64_t *nanoseconds);

#endif
