/*
 * The tracer's core: what the C files of this folder share.
 *
 * fault.c gets a SIGSEGV for every access to a decoy page; decode.c tells what the instruction
 * does; emulate.c does it on the real page; log.c keeps the record. interpose.c stands in the
 * GOT of loaded objects, and channel.c knows which decoy belongs to which page.
 */
#ifndef VCHAN_TRACER_CORE_H
#define VCHAN_TRACER_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "record.h"

#define PAGE_BYTES 4096u
#define CHANNELS_MAX 64u
#define THREADS_MAX 256u
#define FAULTS_MAX 16u
#define PAGE_HEAD_BYTES 24u

/* One channel: the structure the library gave out, the real page, and the decoy in its place. */
struct channel {
    bool used;
    bool is_server;
    void *ctrl;
    void *event;             /* xenevtchn_handle */
    uint8_t *page;           /* the real shared page, NULL before and after */
    uint8_t *decoy;          /* PROT_NONE, same offsets */
    uint8_t *buffers[2];     /* rings: 0 this end reads, 1 it writes */
    size_t buffer_bytes[2];
};

/* What the core knows of one thread; found through a TLS pointer, listed for look(). */
struct thread {
    uint16_t number;
    uint8_t call;
    uint16_t channel;
    uint32_t seq, call_seq;
    uint8_t cleared_bits;    /* of a notify byte, by the last test-and-clear */
    struct channel *initing; /* the channel that an init call is making */
    uint8_t *block;
    uint32_t block_records;
};

struct trace_config {
    const char *path;
    uint8_t role;
    uint16_t domid, peer_domid;
    uint64_t seed, bytes_max;
    const uint8_t *run_id;
    const char *xen_version, *library, *kernel, *program;
};

/* A fault to inject: the nth notify (of this process) that the given bit caused; bit 0: any. */
struct planned_fault {
    uint8_t bit;
    uint32_t nth, seen;
};

/* log.c */
int log_open(const struct trace_config *config);
void log_finish(void);
void log_forget(void);
bool log_is_open(void);
struct thread *this_thread(void);
struct thread *thread_at(unsigned index);
unsigned thread_count(void);
struct vt_record *log_begin(struct thread *thread);
void log_commit(struct thread *thread, struct vt_record *record);
void log_event(enum vt_kind kind, const struct channel *channel, uint64_t old_value,
               uint64_t new_value, uint16_t flags);
void log_detail(enum vt_kind kind, const struct channel *channel, uint64_t old_value,
                uint64_t new_value, uint16_t flags, uint16_t offset, uint32_t operand);
void log_orders(uint32_t left, uint32_t right);
uint64_t log_records(void);
int log_doorbell(void);

/* channel.c */
struct channel *channel_new(void);
void channel_free(struct channel *channel);
struct channel *channel_of_ctrl(const void *ctrl);
struct channel *channel_of_event(const void *event);
struct channel *channel_of_decoy(const void *address);
struct channel *channel_of_ring(const void *address, unsigned *which, size_t *offset);
struct channel *channel_at(unsigned index);
uint16_t channel_number(const struct channel *channel);
bool channel_make_decoy(struct channel *channel);
void *channel_real(const void *address); /* decoy address -> real one; others unchanged */
void channel_lock(void);
void channel_unlock(void);

/* fault.c */
int fault_install(void);
void fault_remove(void);
void fault_set_text_base(uintptr_t base); /* of libxenvchan: sites are counted from it */

/* interpose.c */
int interpose_attach(void);
void interpose_detach(void);
int interpose_plan_fault(const struct planned_fault *fault);

#endif
