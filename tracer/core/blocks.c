#include "blocks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crc.h"
#include "flight.h"
#include "log.h"
#include "quiet.h"

#define BLOCK_MAGIC 0x4b4c4256
#define BUSY_MILLISECONDS 1
#define IDLE_MILLISECONDS 20
#define WANTED_AT_FIRST 2

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { STATE_COMPLETE = 2, BLOCK_OPEN = 1, BLOCK_CLOSED = 2, BLOCK_OF_RING = 3 };

_Static_assert(offsetof(struct vt_header, blocks_used) == 24, "drawn in layout.py");
_Static_assert(offsetof(struct vt_header, dropped) == 32, "drawn in layout.py");
_Static_assert(offsetof(struct vt_header, state) == 40, "drawn in layout.py");
_Static_assert(offsetof(struct vt_header, left_order) == 68, "drawn in layout.py");
_Static_assert(offsetof(struct vt_header, channels) == 76, "drawn in layout.py");
_Static_assert(offsetof(struct vt_header, tsc_hz) == 80, "drawn in layout.py");
_Static_assert(offsetof(struct vt_header, program) == 320, "drawn in layout.py");
_Static_assert(offsetof(struct vt_header, frozen) == 396, "drawn in layout.py");
_Static_assert(offsetof(struct vt_header, page) == 432, "drawn in layout.py");

struct block_header {
    uint32_t magic;
    uint32_t number;
    uint32_t thread;
    uint32_t first_seq;
    uint32_t count;
    _Atomic uint32_t state;
    uint32_t crc;
    uint32_t tid;
    _Atomic uint64_t first;
};

static struct {
    struct vt_header *header;
    size_t bytes;
    int fd;
    int doorbell_fd;
    _Atomic bool full; /* the disk is */
    pthread_t keeper;
    bool has_keeper;
    int end_fd; /* tells the keeper to end */
} file = { .fd = -1, .doorbell_fd = -1, .end_fd = -1 };

struct vt_header *vt_blocks_header(void)
{
    return file.header;
}

void vt_ring(int bell_fd)
{
    uint64_t one = 1;

    /* It fails only when the counter is full, and then the bell is ringing already. */
    if (write(bell_fd, &one, sizeof(one)) < 0)
        errno = 0;
}

/* ---- queues ---- */

static bool get(struct vt_queue *queue, uint32_t *number)
{
    uint32_t got = atomic_load_explicit(&queue->got, memory_order_relaxed);

    if (atomic_load_explicit(&queue->put, memory_order_acquire) == got)
        return false;
    *number = queue->numbers[got % VT_SPARES_MAX];
    atomic_store_explicit(&queue->got, got + 1, memory_order_release);
    return true;
}

static uint32_t length(const struct vt_queue *queue)
{
    return atomic_load_explicit(&queue->put, memory_order_acquire) -
           atomic_load_explicit(&queue->got, memory_order_acquire);
}

static bool put(struct vt_queue *queue, uint32_t number)
{
    uint32_t count = atomic_load_explicit(&queue->put, memory_order_relaxed);

    if (length(queue) == VT_SPARES_MAX)
        return false;
    queue->numbers[count % VT_SPARES_MAX] = number;
    atomic_store_explicit(&queue->put, count + 1, memory_order_release);
    return true;
}

/* ---- one block ---- */

static uint8_t *block_at(uint32_t number)
{
    return (uint8_t *)file.header + VT_HEADER_BYTES + (size_t)number * VT_BLOCK_BYTES;
}

static bool claim(uint32_t *number, uint32_t count)
{
    *number = atomic_load(&file.header->blocks_used);
    do {
        if (count > file.header->blocks_max - *number || atomic_load(&file.full))
            return false;
    } while (!atomic_compare_exchange_weak(&file.header->blocks_used, number, *number + count));
    return true;
}

/* Without room on the disk the first store to the mapping would be a SIGBUS. */
static bool reserve(uint32_t number, uint32_t count)
{
    off_t start = VT_HEADER_BYTES + (off_t)number * VT_BLOCK_BYTES;
    uint32_t claimed = number + count;

    /* Until Linux 5.19 any signal ends it on tmpfs. */
    do {
        if (!fallocate(file.fd, 0, start, (off_t)count * VT_BLOCK_BYTES) || errno == EOPNOTSUPP)
            return true;
    } while (errno == EINTR);
    atomic_store(&file.full, true);
    atomic_compare_exchange_strong(&file.header->blocks_used, &claimed, number);
    return false;
}

static bool make_present(uint32_t *number, uint32_t count)
{
    if (!claim(number, count) || !reserve(*number, count))
        return false;
    /* One call in place of sixteen page faults; a kernel that does not know it takes them. */
    madvise(block_at(*number), (size_t)count * VT_BLOCK_BYTES, MADV_POPULATE_WRITE);
    return true;
}

static void begin(struct vt_thread *thread, uint32_t number, uint32_t state)
{
    struct block_header *header = (struct block_header *)block_at(number);

    thread->blocks.block = (uint8_t *)header;
    thread->blocks.filled = 0;
    header->magic = BLOCK_MAGIC;
    header->number = number;
    header->thread = thread->number;
    header->first_seq = (uint32_t)thread->seq + 1;
    header->tid = thread->tid;
    /* Until this store the records of the round before count, and each of them until it is gone. */
    atomic_store_explicit(&header->first, thread->seq + 1, memory_order_release);
    atomic_store_explicit(&header->state, state, memory_order_release);
}

/* Over the records' checks: each is of a whole record already. */
static void finish(struct block_header *header, uint32_t count)
{
    const struct vt_record *records = (const void *)((uint8_t *)header + VT_BLOCK_HEADER_BYTES);
    uint32_t checks[VT_RECORDS_PER_BLOCK];

    for (uint32_t i = 0; i < count; i++)
        checks[i] = records[i].check;
    header->count = count;
    header->crc = vt_crc32((const uint8_t *)checks, count * sizeof(checks[0]));
    atomic_store_explicit(&header->state, BLOCK_CLOSED, memory_order_release);
}

/* ---- the thread that records ---- */

static void finish_own(void *argument)
{
    struct vt_thread *thread = argument;
    int errno_before = errno;

    finish((struct block_header *)thread->blocks.block, thread->blocks.filled);
    vt_ring(file.doorbell_fd);
    errno = errno_before;
}

static void begin_own(void *argument)
{
    struct vt_thread *thread = argument;
    int errno_before = errno;
    uint32_t number;

    if (make_present(&number, 1))
        begin(thread, number, BLOCK_OPEN);
    errno = errno_before;
}

static void begin_ring(void *argument)
{
    struct vt_thread *thread = argument;
    int errno_before = errno;

    if (make_present(&thread->blocks.ring, file.header->ring_blocks))
        begin(thread, thread->blocks.ring, BLOCK_OF_RING);
    errno = errno_before;
}

/* The next block of its ring, the oldest one; of the first record: the whole ring is got first. */
static void turn_in_ring(struct vt_thread *thread)
{
    const struct vt_blocks *blocks = &thread->blocks;
    uint32_t number;

    if (!blocks->block) {
        vt_aside(begin_ring, thread);
        return;
    }
    number = ((struct block_header *)blocks->block)->number + 1;
    if (number == blocks->ring + file.header->ring_blocks)
        number = blocks->ring;
    begin(thread, number, BLOCK_OF_RING);
}

static void want_more(struct vt_blocks *blocks)
{
    uint32_t wanted = atomic_load_explicit(&blocks->wanted, memory_order_relaxed);

    wanted = !wanted ? WANTED_AT_FIRST : wanted < VT_SPARES_MAX ? 2 * wanted : wanted;
    atomic_store_explicit(&blocks->wanted, wanted, memory_order_relaxed);
}

void vt_blocks_turn(struct vt_thread *thread)
{
    struct vt_blocks *blocks = &thread->blocks;
    uint32_t number;

    if (file.header->ring_blocks) {
        turn_in_ring(thread);
        return;
    }
    if (blocks->block) {
        number = ((struct block_header *)blocks->block)->number;
        if (!put(&blocks->full, number))
            vt_aside(finish_own, thread);
        blocks->block = NULL;
    }
    if (get(&blocks->spare, &number)) {
        begin(thread, number, BLOCK_OPEN);
        return;
    }
    want_more(blocks);
    vt_aside(begin_own, thread);
}

/* ---- the keeper ---- */

static bool finish_full(struct vt_blocks *blocks)
{
    bool any = false;
    uint32_t number;

    for (; get(&blocks->full, &number); any = true)
        finish((struct block_header *)block_at(number), VT_RECORDS_PER_BLOCK);
    return any;
}

static bool give_spares(struct vt_blocks *blocks)
{
    uint32_t wanted = atomic_load_explicit(&blocks->wanted, memory_order_relaxed), number;
    bool any = false;

    for (; length(&blocks->spare) < wanted && make_present(&number, 1); any = true)
        put(&blocks->spare, number);
    return any;
}

static bool keep_once(void)
{
    bool gave = false, finished = false;

    if (file.header->ring_blocks) {
        vt_flight_watch();
        return false;
    }
    for (uint32_t i = 0; i < vt_log_threads(); i++) {
        struct vt_blocks *blocks = &vt_log_thread(i)->blocks;

        gave |= give_spares(blocks);
        finished |= finish_full(blocks);
    }
    if (finished)
        vt_ring(file.doorbell_fd);
    return gave || finished;
}

static void *keep(void *unused)
{
    struct pollfd end = { .fd = file.end_fd, .events = POLLIN };
    bool busy = false;

    while (!poll(&end, 1, busy ? BUSY_MILLISECONDS : IDLE_MILLISECONDS))
        busy = keep_once();
    return unused;
}

/* Without one every thread does all itself, as slowly as that is. */
static void start_keeper(void)
{
    sigset_t all, before;

    file.end_fd = eventfd(0, EFD_CLOEXEC);
    if (file.end_fd < 0)
        return;
    /* Signals of the process are its own threads' matter. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    file.has_keeper = !pthread_create(&file.keeper, NULL, keep, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (file.has_keeper)
        pthread_setname_np(file.keeper, "vchan-tracer");
}

static void end_keeper(void)
{
    if (file.has_keeper) {
        vt_ring(file.end_fd);
        pthread_join(file.keeper, NULL);
    }
    file.has_keeper = false;
    if (file.end_fd >= 0)
        close(file.end_fd);
    file.end_fd = -1;
}

/* ---- start and stop ---- */

int vt_blocks_start(int fd, const uint8_t *header, uint32_t blocks_max, int doorbell_fd)
{
    size_t bytes = VT_HEADER_BYTES + (size_t)blocks_max * VT_BLOCK_BYTES;
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (mapped == MAP_FAILED)
        return -errno;
    memcpy(mapped, header, VT_HEADER_BYTES);
    vt_flight_begin();
    vt_crc32_init();
    file.header = mapped;
    file.bytes = bytes;
    file.fd = fd;
    file.doorbell_fd = doorbell_fd;
    atomic_store(&file.full, false);
    start_keeper();
    return 0;
}

static void let_go(void)
{
    munmap(file.header, file.bytes);
    file.header = NULL;
    file.fd = file.doorbell_fd = -1;
}

static void finish_all(void)
{
    for (uint32_t i = 0; i < vt_log_threads(); i++) {
        struct vt_blocks *blocks = &vt_log_thread(i)->blocks;

        finish_full(blocks);
        if (blocks->block && !file.header->ring_blocks)
            finish((struct block_header *)blocks->block, blocks->filled);
        blocks->block = NULL;
    }
}

/* Spares that nobody took are holes; those behind the last block go with the rest of the file. */
static uint32_t last_used(void)
{
    uint32_t number = atomic_load(&file.header->blocks_used);

    while (number && ((struct block_header *)block_at(number - 1))->magic != BLOCK_MAGIC)
        number--;
    return number;
}

uint32_t vt_blocks_stop(void)
{
    uint32_t reach;

    end_keeper();
    finish_all();
    reach = last_used();
    atomic_store(&file.header->blocks_used, reach);
    vt_ring(file.doorbell_fd);
    atomic_store(&file.header->state, STATE_COMPLETE);
    let_go();
    return reach;
}

void vt_blocks_abandon(void)
{
    file.has_keeper = false;
    if (file.end_fd >= 0)
        close(file.end_fd);
    file.end_fd = -1;
    let_go();
}
