/*
 * The trace file: a header page and blocks, each block one thread's. The bytes are drawn in
 * tracer/layout.py.
 *
 * A thread of the tracer's own, the keeper, has blocks present before they are needed and closes
 * those that are full, so that a traced thread makes no system call and touches no new page. Where
 * the keeper is late the thread does it itself.
 *
 * Of a flight recorder (flight.h) a thread has all its blocks from its first record on, and goes round
 * in them. None of these is ever closed: each record counts by itself.
 */
#ifndef VCHAN_TRACER_BLOCKS_H
#define VCHAN_TRACER_BLOCKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "record.h"

#define VT_HEADER_BYTES 4096
#define VT_BLOCK_BYTES 65536
#define VT_BLOCK_HEADER_BYTES 64
#define VT_RECORDS_PER_BLOCK \
    ((VT_BLOCK_BYTES - VT_BLOCK_HEADER_BYTES) / sizeof(struct vt_record))
#define VT_SPARES_MAX 16

/* The header page, as layout.py draws it. */
struct vt_header {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint32_t record_bytes;
    uint32_t block_bytes;
    _Atomic uint32_t blocks_used;
    uint32_t blocks_max;
    _Atomic uint64_t dropped;
    _Atomic uint32_t state;
    uint32_t role;
    uint32_t level;
    uint32_t order;
    uint32_t variant;
    uint32_t domid;
    uint32_t peer_domid;
    uint32_t left_order;
    uint32_t right_order;
    _Atomic uint32_t channels;
    uint64_t tsc_hz;
    uint64_t seed;
    uint64_t start_tsc;
    uint64_t start_realtime_ns;
    uint8_t run_id[16];
    char xen_version[64];
    char library[64];
    char kernel[64];
    char program[64];
    uint32_t ring_blocks; /* 0: all is kept; else a flight recorder's ring has so many, a thread */
    uint32_t settle_milliseconds;
    _Atomic uint32_t request; /* another process asks for the freeze by a 1 */
    _Atomic uint32_t frozen;  /* enum vt_frozen_by */
    uint64_t frozen_tsc;
    _Atomic uint64_t left_out; /* records that came later */
    _Atomic uint64_t left_out_tsc; /* when the first of these came */
    uint32_t look; /* what was seen when it was frozen by the settle time */
    uint32_t in_call;
    uint8_t page[24];
};

#define VT_NOT_KNOWN 0xffffffffu
#define VT_ROLE_SERVER 0
#define VT_ROLE_CLIENT 1

/*
 * A queue from one thread to another, of which each writes one count: no locked instruction, because
 * it is used between two accesses of the library.
 */
struct vt_queue {
    _Atomic uint32_t put;
    _Atomic uint32_t got;
    uint32_t numbers[VT_SPARES_MAX];
};

/* What a thread has of the file. */
struct vt_blocks {
    uint32_t filled; /* records in `block` */
    uint32_t ring;   /* of a flight recorder: the first block of the thread's ring */
    uint8_t *block;  /* NULL: none yet */
    struct vt_queue spare; /* from the keeper */
    struct vt_queue full;  /* to the keeper */
    _Atomic uint32_t wanted; /* spares; twice as many each time there was none left */
};

struct vt_thread;

/*
 * Map the file of `blocks_max` blocks, with `header` as its first page, and start the keeper. 0 or
 * a negative errno. The file is the caller's, and so is the doorbell, an eventfd that is rung when a
 * block is closed.
 */
int vt_blocks_start(int fd, const uint8_t *header, uint32_t blocks_max, int doorbell_fd);

/* Give the thread a block with room; without one its `block` is NULL. */
void vt_blocks_turn(struct vt_thread *thread);

/* When nobody writes any more: close all. How many blocks the file reaches to. */
uint32_t vt_blocks_stop(void);

/* In a child after fork: let go of the file, and of a keeper that is not here. */
void vt_blocks_abandon(void);

/* The header page of the file, NULL if there is none. */
struct vt_header *vt_blocks_header(void);

/* Ring a bell, an eventfd. */
void vt_ring(int bell_fd);

#endif
