#include "log.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "channels.h"
#include "clock.h"
#include "quiet.h"

static struct {
    _Atomic uint32_t session; /* 0: not recording */
    uint32_t sessions;
    _Atomic uint32_t threads_used;
    _Atomic uint32_t nameless; /* threads without a place that are writing */
} trace;

static struct vt_thread threads[VT_THREADS_MAX];

/* initial-exec: a signal handler must not be the first to make the loader allocate these. */
#define IN_STATIC_TLS __attribute__((tls_model("initial-exec")))
static __thread struct vt_thread *own IN_STATIC_TLS;
static __thread uint32_t own_session IN_STATIC_TLS;

uint32_t vt_log_session(void)
{
    return atomic_load(&trace.session);
}

struct vt_thread *vt_thread(void)
{
    uint32_t session = vt_log_session(), number;

    if (!session)
        return NULL;
    if (own_session == session)
        return own;
    own_session = session;
    own = NULL;
    number = atomic_fetch_add(&trace.threads_used, 1);
    if (number < VT_THREADS_MAX) {
        own = &threads[number];
        own->number = (uint16_t)number;
        own->tid = (uint32_t)syscall(SYS_gettid);
    }
    return own;
}

uint32_t vt_log_threads(void)
{
    uint32_t used = atomic_load(&trace.threads_used);

    return used < VT_THREADS_MAX ? used : VT_THREADS_MAX;
}

struct vt_thread *vt_log_thread(uint32_t number)
{
    return &threads[number];
}

uint64_t vt_log_records(void)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < vt_log_threads(); i++)
        count += __atomic_load_n(&threads[i].seq, __ATOMIC_RELAXED);
    return count;
}

#define WORDS (sizeof(struct vt_record) / sizeof(uint64_t))
#define SEQ_WORD (offsetof(struct vt_record, seq) / sizeof(uint64_t))
#define FACTOR 0xd6e8feb86659fd93u
#define FACTOR_2 (FACTOR * FACTOR)
#define FACTOR_4 (FACTOR_2 * FACTOR_2)

/* As record_check() in tracer/layout.py, without a check in the last word. No product waits. */
static inline uint32_t check_of(const uint64_t *words)
{
    uint64_t sum = 0x9e3779b97f4a7c15u + words[0] * FACTOR + words[1] * FACTOR_2 +
                   words[2] * (FACTOR_2 * FACTOR) + words[3] * FACTOR_4 +
                   words[4] * (FACTOR_4 * FACTOR) + words[5] * (FACTOR_4 * FACTOR_2) +
                   words[6] * (FACTOR_4 * FACTOR_2 * FACTOR) + words[7] * (FACTOR_4 * FACTOR_4);

    sum = (sum ^ sum >> 32) * FACTOR;
    return (uint32_t)(sum >> 32);
}

/* Room for one more record of the thread, NULL if there is none. */
static struct vt_record *next_place(struct vt_thread *thread)
{
    struct vt_blocks *blocks = &thread->blocks;

    if (!blocks->block || blocks->filled == VT_RECORDS_PER_BLOCK)
        vt_blocks_turn(thread);
    if (!blocks->block)
        return NULL;
    return (struct vt_record *)(blocks->block + VT_BLOCK_HEADER_BYTES) + blocks->filled;
}

/*
 * Put a record where it belongs, with what is the thread's. It is put together in registers: what was
 * just stored in small pieces cannot be loaded in large ones before it is in the cache.
 */
static inline void write_record(struct vt_record *place, const struct vt_thread *thread,
                                const struct vt_record *record)
{
    uint64_t call = atomic_load_explicit(&thread->call, memory_order_relaxed);
    uint64_t words[WORDS] = {
        record->t0,
        record->t1,
        record->old,
        record->new_,
        record->site | (uint64_t)record->operand << 32,
        (uint32_t)(thread->seq + 1) | (call ? (uint64_t)thread->call_seq << 32 : 0),
        record->channel | (uint64_t)thread->number << 16 | (uint64_t)record->offset << 32 |
            (uint64_t)record->kind << 48 | (uint64_t)record->op << 56,
        call | (uint64_t)record->width << 8 | (uint64_t)record->flags << 16,
    };
    uint32_t check = check_of(words);

    words[WORDS - 1] |= (uint64_t)check << 32;
    /* In a ring there is an older record, which must not be taken for this one half written. */
    __atomic_store_n((uint64_t *)place + SEQ_WORD, 0, __ATOMIC_RELEASE);
    atomic_signal_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < WORDS; i++)
        if (i != SEQ_WORD)
            memcpy((uint64_t *)place + i, words + i, sizeof(*words));
    /* Who follows the file takes the number for the sign that the rest is there. */
    __atomic_store_n((uint64_t *)place + SEQ_WORD, words[SEQ_WORD], __ATOMIC_RELEASE);
}

/* What came when the flight recorder was frozen. */
static void leave_out(void)
{
    struct vt_header *header = vt_blocks_header();

    if (!atomic_fetch_add(&header->left_out, 1))
        atomic_store(&header->left_out_tsc, vt_stamp_before());
}

static void append(struct vt_thread *thread, const struct vt_record *record)
{
    struct vt_record *place;

    if (atomic_load_explicit(&vt_flight_is_frozen, memory_order_relaxed)) {
        leave_out();
        return;
    }
    place = next_place(thread);
    if (place) {
        write_record(place, thread, record);
        thread->blocks.filled++;
    } else {
        atomic_fetch_add(&vt_blocks_header()->dropped, 1);
    }
    /* Behind the record: who counts what was written must find it in the file of a killed process. */
    __atomic_store_n(&thread->seq, thread->seq + 1, __ATOMIC_RELEASE);
}

/* vt_log_stop ends the session and then waits for who writes: one of the two sees the other. */
static void count_dropped(void)
{
    atomic_fetch_add(&trace.nameless, 1);
    if (vt_log_session())
        atomic_fetch_add(&vt_blocks_header()->dropped, 1);
    atomic_fetch_sub(&trace.nameless, 1);
}

/*
 * Who writes says so and then looks whether the session goes on; who ends it does it the other way
 * round, so one of the two sees the other. That takes a barrier between the two steps of each, and
 * a barrier here would stand between any two accesses of the library: vt_log_stop() makes every
 * processor that runs one of our threads pass one instead.
 */
static bool begin_writing(struct vt_thread *thread)
{
    atomic_store_explicit(&thread->writing, 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    return atomic_load_explicit(&trace.session, memory_order_relaxed) == own_session;
}

static void end_writing(struct vt_thread *thread)
{
    atomic_store_explicit(&thread->writing, 0, memory_order_release);
}

void vt_log(struct vt_thread *thread, const struct vt_record *record)
{
    if (!thread) {
        count_dropped();
        return;
    }
    if (begin_writing(thread))
        append(thread, record);
    end_writing(thread);
}

void vt_log_ring(struct vt_thread *thread, int bell_fd)
{
    int errno_before = errno;

    if (begin_writing(thread))
        vt_ring(bell_fd);
    end_writing(thread);
    errno = errno_before;
}

void vt_log_attached(const struct vt_channel *channel, uint32_t left_order, uint32_t right_order)
{
    atomic_fetch_add(&trace.nameless, 1);
    if (vt_log_session() && !atomic_fetch_add(&vt_blocks_header()->channels, 1)) {
        struct vt_header *header = vt_blocks_header();

        header->left_order = left_order;
        header->right_order = right_order;
        if (header->peer_domid == VT_NOT_KNOWN) {
            header->role = channel->is_server ? VT_ROLE_SERVER : VT_ROLE_CLIENT;
            header->peer_domid = channel->peer_domid;
        }
    }
    atomic_fetch_sub(&trace.nameless, 1);
}

int vt_log_start(int fd, const uint8_t *header, uint32_t blocks_max, int doorbell_fd)
{
    int error;

    if (vt_log_session())
        return -EBUSY;
    memset(threads, 0, sizeof(threads));
    atomic_store(&trace.threads_used, 0);
    error = vt_blocks_start(fd, header, blocks_max, doorbell_fd);
    if (error)
        return error;
    atomic_store(&trace.session, ++trace.sessions);
    return 0;
}

/* As begin_writing() needs it. Where the kernel has no such call, store buffers empty in time. */
static void pass_barriers(void)
{
    const struct timespec pause = { .tv_nsec = 10000000 };

    if (!syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) &&
        !syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
        return;
    nanosleep(&pause, NULL);
}

uint32_t vt_log_stop(void)
{
    if (!vt_log_session())
        return 0;
    atomic_store(&trace.session, 0);
    pass_barriers();
    while (atomic_load(&trace.nameless))
        sched_yield();
    for (uint32_t i = 0; i < vt_log_threads(); i++)
        while (atomic_load(&threads[i].writing))
            sched_yield();
    return vt_blocks_stop();
}

void vt_log_freeze(enum vt_frozen_by by)
{
    /* As count_dropped(): the file is not let go of meanwhile. */
    atomic_fetch_add(&trace.nameless, 1);
    if (vt_log_session())
        vt_flight_freeze(by);
    atomic_fetch_sub(&trace.nameless, 1);
}

void vt_log_abandon(void)
{
    if (!vt_log_session())
        return;
    atomic_store(&trace.session, 0);
    atomic_store(&trace.nameless, 0);
    vt_blocks_abandon();
}
