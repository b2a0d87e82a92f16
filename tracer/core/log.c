#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "crc.h"

#define HEADER_BYTES 4096
#define BLOCK_BYTES 65536
#define BLOCK_HEADER_BYTES 64
#define RECORDS_PER_BLOCK ((BLOCK_BYTES - BLOCK_HEADER_BYTES) / sizeof(struct vt_record))
#define BLOCK_MAGIC 0x4b4c4256

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { STATE_COMPLETE = 2, BLOCK_OPEN = 1, BLOCK_CLOSED = 2 };

/* The fields of the header page that change while recording. */
struct header {
    uint8_t before_blocks[24];
    _Atomic uint32_t blocks_used;
    uint32_t blocks_max;
    _Atomic uint64_t dropped;
    _Atomic uint32_t state;
    uint8_t before_orders[24];
    uint32_t left_order;
    uint32_t right_order;
    _Atomic uint32_t channels;
};

_Static_assert(offsetof(struct header, blocks_used) == 24, "drawn in layout.py");
_Static_assert(offsetof(struct header, dropped) == 32, "drawn in layout.py");
_Static_assert(offsetof(struct header, state) == 40, "drawn in layout.py");
_Static_assert(offsetof(struct header, left_order) == 68, "drawn in layout.py");
_Static_assert(offsetof(struct header, channels) == 76, "drawn in layout.py");

struct block_header {
    uint32_t magic;
    uint32_t number;
    uint32_t thread;
    uint32_t first_seq;
    uint32_t count;
    _Atomic uint32_t state;
    uint32_t crc;
    uint32_t tid;
};

static struct {
    _Atomic uint32_t session; /* 0: not recording */
    uint32_t sessions;
    _Atomic uint32_t threads_used;
    _Atomic uint32_t nameless; /* threads without a place that are writing */
    _Atomic bool full;         /* the disk is */
    struct header *header;
    size_t bytes;
    int fd;
    int doorbell_fd;
} trace = { .fd = -1, .doorbell_fd = -1 };

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
        own->tid = (uint32_t)syscall(SYS_gettid);
    }
    return own;
}

uint32_t vt_log_threads(void)
{
    uint32_t used = atomic_load(&trace.threads_used);

    return used < VT_THREADS_MAX ? used : VT_THREADS_MAX;
}

const struct vt_thread *vt_log_thread(uint32_t number)
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

/* As record_check() in tracer/layout.py. */
static uint32_t check_of(const struct vt_record *record)
{
    uint64_t mixed = 0x9e3779b97f4a7c15u, word;

    for (unsigned i = 0; i < 8; i++) {
        memcpy(&word, (const uint8_t *)record + 8 * i, sizeof(word));
        if (i == 7)
            word &= 0xffffffffu; /* without the check itself */
        mixed = (mixed ^ word) * 0xd6e8feb86659fd93u;
        mixed ^= mixed >> 32;
    }
    return (uint32_t)mixed;
}

static void ring(int bell_fd)
{
    uint64_t one = 1;

    /* It fails only when the counter is full, and then the bell is ringing already. */
    if (write(bell_fd, &one, sizeof(one)) < 0)
        errno = 0;
}

static void close_block(struct vt_thread *thread)
{
    struct block_header *header = (struct block_header *)thread->block;

    header->count = thread->filled;
    header->crc = vt_crc32(thread->block + BLOCK_HEADER_BYTES,
                           thread->filled * sizeof(struct vt_record));
    atomic_store_explicit(&header->state, BLOCK_CLOSED, memory_order_release);
    thread->block = NULL;
    ring(trace.doorbell_fd);
}

static bool claim_block(uint32_t *number)
{
    *number = atomic_load(&trace.header->blocks_used);
    do {
        if (*number >= trace.header->blocks_max || atomic_load(&trace.full))
            return false;
    } while (!atomic_compare_exchange_weak(&trace.header->blocks_used, number, *number + 1));
    return true;
}

/* Without room on the disk the first store to the mapping would be a SIGBUS. */
static bool reserve_block(uint32_t number)
{
    off_t start = HEADER_BYTES + (off_t)number * BLOCK_BYTES;
    uint32_t claimed = number + 1;

    /* Until Linux 5.19 any signal ends it on tmpfs. */
    do {
        if (!fallocate(trace.fd, 0, start, BLOCK_BYTES) || errno == EOPNOTSUPP)
            return true;
    } while (errno == EINTR);
    atomic_store(&trace.full, true);
    atomic_compare_exchange_strong(&trace.header->blocks_used, &claimed, number);
    return false;
}

static bool open_block(struct vt_thread *thread)
{
    struct block_header *header;
    uint32_t number;

    if (!claim_block(&number) || !reserve_block(number))
        return false;
    thread->block = (uint8_t *)trace.header + HEADER_BYTES + (size_t)number * BLOCK_BYTES;
    /* One call in place of sixteen page faults; a kernel that does not know it takes them. */
    if (madvise(thread->block, BLOCK_BYTES, MADV_POPULATE_WRITE))
        errno = 0;
    header = (struct block_header *)thread->block;
    header->magic = BLOCK_MAGIC;
    header->number = number;
    header->thread = (uint32_t)(thread - threads);
    header->first_seq = thread->seq;
    header->tid = thread->tid;
    atomic_store_explicit(&header->state, BLOCK_OPEN, memory_order_release);
    thread->filled = 0;
    return true;
}

/* Room for one more record of the thread, NULL if there is none. */
static struct vt_record *next_place(struct vt_thread *thread)
{
    if (thread->block && thread->filled == RECORDS_PER_BLOCK)
        close_block(thread);
    if (!thread->block && !open_block(thread))
        return NULL;
    return (struct vt_record *)(thread->block + BLOCK_HEADER_BYTES) + thread->filled;
}

static void append(struct vt_thread *thread, const struct vt_record *record)
{
    struct vt_record whole = *record, *place;

    __atomic_store_n(&thread->seq, thread->seq + 1, __ATOMIC_RELAXED);
    place = next_place(thread);
    if (!place) {
        atomic_fetch_add(&trace.header->dropped, 1);
        return;
    }
    whole.seq = thread->seq;
    whole.thread = (uint16_t)(thread - threads);
    whole.call = atomic_load_explicit(&thread->call, memory_order_relaxed);
    whole.call_seq = whole.call ? thread->call_seq : 0;
    whole.check = check_of(&whole);
    /* Who follows the file takes the number for the sign that the rest is there. */
    whole.seq = 0;
    *place = whole;
    __atomic_store_n(&place->seq, thread->seq, __ATOMIC_RELEASE);
    thread->filled++;
}

/* vt_log_stop ends the session and then waits for who writes: one of the two sees the other. */
static void count_dropped(void)
{
    atomic_fetch_add(&trace.nameless, 1);
    if (vt_log_session())
        atomic_fetch_add(&trace.header->dropped, 1);
    atomic_fetch_sub(&trace.nameless, 1);
}

void vt_log(struct vt_thread *thread, const struct vt_record *record)
{
    int errno_before = errno;

    if (!thread) {
        count_dropped();
        return;
    }
    atomic_store(&thread->writing, 1);
    if (vt_log_session() == own_session)
        append(thread, record);
    atomic_store_explicit(&thread->writing, 0, memory_order_release);
    errno = errno_before;
}

void vt_log_ring(struct vt_thread *thread, int bell_fd)
{
    int errno_before = errno;

    atomic_store(&thread->writing, 1);
    if (vt_log_session() == own_session)
        ring(bell_fd);
    atomic_store_explicit(&thread->writing, 0, memory_order_release);
    errno = errno_before;
}

void vt_log_attached(uint32_t left_order, uint32_t right_order)
{
    atomic_fetch_add(&trace.nameless, 1);
    if (vt_log_session() && !atomic_fetch_add(&trace.header->channels, 1)) {
        trace.header->left_order = left_order;
        trace.header->right_order = right_order;
    }
    atomic_fetch_sub(&trace.nameless, 1);
}

int vt_log_start(int fd, const uint8_t *header, uint32_t blocks_max, int doorbell_fd)
{
    size_t bytes = HEADER_BYTES + (size_t)blocks_max * BLOCK_BYTES;
    void *mapped;

    if (vt_log_session())
        return -EBUSY;
    mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    memcpy(mapped, header, HEADER_BYTES);
    memset(threads, 0, sizeof(threads));
    vt_crc32_init();
    trace.header = mapped;
    trace.bytes = bytes;
    trace.fd = fd;
    trace.doorbell_fd = doorbell_fd;
    atomic_store(&trace.full, false);
    atomic_store(&trace.threads_used, 0);
    atomic_store(&trace.session, ++trace.sessions);
    return 0;
}

static void let_go(void)
{
    munmap(trace.header, trace.bytes);
    trace.header = NULL;
    trace.fd = trace.doorbell_fd = -1;
}

uint32_t vt_log_stop(void)
{
    uint32_t used;

    if (!vt_log_session())
        return 0;
    atomic_store(&trace.session, 0);
    while (atomic_load(&trace.nameless))
        sched_yield();
    for (uint32_t i = 0; i < vt_log_threads(); i++) {
        while (atomic_load(&threads[i].writing))
            sched_yield();
        if (threads[i].block)
            close_block(&threads[i]);
    }
    used = atomic_load(&trace.header->blocks_used);
    atomic_store(&trace.header->state, STATE_COMPLETE);
    let_go();
    return used;
}

void vt_log_abandon(void)
{
    if (!vt_log_session())
        return;
    atomic_store(&trace.session, 0);
    atomic_store(&trace.nameless, 0);
    let_go();
}
