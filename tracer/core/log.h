/*
 * Who records, and where a thread's next record goes in the trace file (blocks.h).
 *
 * What is called while recording runs inside of a signal handler too: no locks, no malloc, and errno
 * stays.
 */
#ifndef VCHAN_TRACER_LOG_H
#define VCHAN_TRACER_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "blocks.h"
#include "flight.h"
#include "record.h"
#include "steps.h"

#define VT_THREADS_MAX 4096
#define VT_LATE_COPIES_MAX 4

struct vt_channel;

/* A copy whose digest is put off. */
struct vt_late_copy {
    const uint8_t *bytes; /* the application's side of it */
    size_t count;
    uint32_t seq;         /* of its record */
};

/* What is known of one thread; its number is its place in the table. */
struct vt_thread {
    uint32_t tid;
    uint64_t seq;            /* of its newest record */
    uint32_t call_seq;       /* of its newest call */
    uint16_t channel;        /* of its newest call */
    _Atomic uint8_t call;    /* enum vt_call it is in, else 0 */
    _Atomic uint8_t held;    /* a fault holds it now */
    uint8_t changed_looks;   /* 1 + the fault that changes the loads of its step, else 0 */
    struct vt_follow follow; /* kept where faults are injected */
    struct vt_channel *made; /* the channel that its init is making */
    struct vt_channel *used; /* the channel whose call it is in, NULL outside */
    struct vt_late_copy late[VT_LATE_COPIES_MAX];
    uint32_t late_count;
    uint16_t number;         /* its place */
    struct vt_blocks blocks;
    _Atomic uint32_t writing;
};

/*
 * Map the file and start recording; `header` is its first page. 0 or a negative errno. The file
 * has room for `blocks_max` blocks; it is the caller's, and so is the doorbell, an eventfd.
 */
int vt_log_start(int fd, const uint8_t *header, uint32_t blocks_max, int doorbell_fd);

/*
 * Stop recording, close every block and let go of the file. How many blocks it reaches to; 0 if
 * there was none.
 */
uint32_t vt_log_stop(void);

/* Freeze a flight recorder. From any thread, and from a signal handler. */
void vt_log_freeze(enum vt_frozen_by by);

/* In a child after fork: let go of the parent's file without a word in it. */
void vt_log_abandon(void);

/* Number of the recording that is going on, 0 if there is none. */
uint32_t vt_log_session(void);

/* This thread, NULL if nothing is being recorded or if there are too many threads. */
struct vt_thread *vt_thread(void);

/*
 * Append a record: all but thread, seq, call, call_seq and check are the caller's. If there is no
 * room it is counted as dropped and its number is missing.
 */
void vt_log(struct vt_thread *thread, const struct vt_record *record);

/*
 * Ring a bell, an eventfd, if the trace is still being recorded: once it is not, the descriptor may
 * be another file's.
 */
void vt_log_ring(struct vt_thread *thread, int bell_fd);

/*
 * One more channel is there; of the first one the header tells the orders, and its role and peer if
 * whoever made the header did not know them (VT_NOT_KNOWN).
 */
void vt_log_attached(const struct vt_channel *channel, uint32_t left_order, uint32_t right_order);

/* For looks, from any thread. */
uint64_t vt_log_records(void);
uint32_t vt_log_threads(void);
struct vt_thread *vt_log_thread(uint32_t number);

#endif
