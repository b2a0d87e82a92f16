/*
 * The trace file: blocks of a mapped file, one open block a thread. The bytes are drawn in
 * tracer/layout.py. Everything here but opening and closing runs inside a signal handler too.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "core.h"

#define HEADER_BYTES 4096u
#define BLOCK_BYTES 65536u
#define BLOCK_HEADER_BYTES 64u
#define RECORDS_PER_BLOCK ((BLOCK_BYTES - BLOCK_HEADER_BYTES) / sizeof(struct vt_record))
#define CALIBRATION_NS 20000000L

enum { RECORDING = 1, COMPLETE = 2 };
enum { BLOCK_OPEN = 1, BLOCK_CLOSED = 2 };

struct header {
    char magic[8];
    uint32_t version, header_bytes, record_bytes, block_bytes;
    _Atomic uint32_t blocks_used;
    uint32_t blocks_max;
    _Atomic uint64_t dropped;
    uint32_t state, role, level, order, variant, domid, peer_domid, left_order, right_order;
    uint32_t channels;
    uint64_t tsc_hz, seed, start_tsc, start_realtime_ns;
    uint8_t run_id[16];
    char xen_version[64], library[64], kernel[64], program[64];
};
_Static_assert(offsetof(struct header, dropped) == 32, "as drawn");
_Static_assert(offsetof(struct header, state) == 40, "as drawn");
_Static_assert(offsetof(struct header, channels) == 76, "as drawn");
_Static_assert(offsetof(struct header, run_id) == 112, "as drawn");
_Static_assert(offsetof(struct header, program) == 320, "as drawn");

struct block_header {
    char magic[4];
    uint32_t number, thread, first_seq, count, state, crc, tid;
};
_Static_assert(offsetof(struct block_header, state) == 20, "as drawn");
_Static_assert(offsetof(struct block_header, crc) == 24, "as drawn");

static struct header *header;
static size_t file_bytes;
static int file = -1;
static int doorbell = -1;
static uint32_t crc_table[256];
static struct thread threads[THREADS_MAX];
static _Atomic unsigned threads_used;
static _Atomic unsigned generation;
/* initial-exec: a handler must not be the first to ask the loader for this memory. */
static __thread struct thread *mine __attribute__((tls_model("initial-exec")));
static __thread unsigned mine_generation __attribute__((tls_model("initial-exec")));

static void fill_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;

        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
        crc_table[i] = value;
    }
}

static uint32_t crc32_of(const uint8_t *data, size_t count)
{
    uint32_t value = ~0u;

    while (count--)
        value = crc_table[(value ^ *data++) & 0xff] ^ value >> 8;
    return ~value;
}

static uint64_t nanoseconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The processor's word for it where it has one, else measured against the monotonic clock. */
static uint64_t tsc_frequency(void)
{
    unsigned a, b, c, d;

    if (__get_cpuid(0x15, &a, &b, &c, &d) && a && b && c)
        return (uint64_t)c * b / a;
    uint64_t ns0 = nanoseconds(CLOCK_MONOTONIC), t0 = __rdtsc(), ns1;
    do
        ns1 = nanoseconds(CLOCK_MONOTONIC);
    while (ns1 - ns0 < CALIBRATION_NS);
    return (uint64_t)((double)(__rdtsc() - t0) * 1e9 / (double)(ns1 - ns0));
}

static void copy_text(char *to, size_t room, const char *text)
{
    size_t count = strnlen(text, room - 1);

    memcpy(to, text, count);
}

static void fill_header(const struct trace_config *config)
{
    memcpy(header->magic, "VCHTRACE", 8);
    header->version = 1;
    header->header_bytes = HEADER_BYTES;
    header->record_bytes = sizeof(struct vt_record);
    header->block_bytes = BLOCK_BYTES;
    header->blocks_max = (uint32_t)((file_bytes - HEADER_BYTES) / BLOCK_BYTES);
    header->state = RECORDING;
    header->role = config->role;
    header->level = 1;
    header->variant = 1;
    header->domid = config->domid;
    header->peer_domid = config->peer_domid;
    header->tsc_hz = tsc_frequency();
    header->seed = config->seed;
    header->start_tsc = __rdtsc();
    header->start_realtime_ns = nanoseconds(CLOCK_REALTIME);
    memcpy(header->run_id, config->run_id, sizeof(header->run_id));
    copy_text(header->xen_version, sizeof(header->xen_version), config->xen_version);
    copy_text(header->library, sizeof(header->library), config->library);
    copy_text(header->kernel, sizeof(header->kernel), config->kernel);
    copy_text(header->program, sizeof(header->program), config->program);
}

int log_open(const struct trace_config *config)
{
    fill_crc_table();
    file_bytes = HEADER_BYTES + config->bytes_max / BLOCK_BYTES * BLOCK_BYTES;
    file = open(config->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return -errno;
    if (ftruncate(file, (off_t)file_bytes) < 0)
        goto fail;
    void *map = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map == MAP_FAILED)
        goto fail;
    header = map;
    doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    memset(threads, 0, sizeof(threads));
    atomic_store(&threads_used, 0);
    atomic_fetch_add(&generation, 1);
    fill_header(config);
    return 0;
fail:;
    int error = errno;
    close(file);
    file = -1;
    return -error;
}

bool log_is_open(void) { return header != NULL; }
int log_doorbell(void) { return doorbell; }
void log_orders(uint32_t left, uint32_t right)
{
    if (!header)
        return;
    if (header->channels++ == 0) {
        header->left_order = left;
        header->right_order = right;
    }
}

struct thread *this_thread(void)
{
    if (mine && mine_generation == atomic_load(&generation))
        return mine;
    unsigned index = atomic_fetch_add(&threads_used, 1);
    if (index >= THREADS_MAX)
        index = THREADS_MAX - 1;
    mine = &threads[index];
    mine->number = (uint16_t)index;
    mine_generation = atomic_load(&generation);
    return mine;
}

unsigned thread_count(void)
{
    unsigned used = atomic_load(&threads_used);

    return used < THREADS_MAX ? used : THREADS_MAX;
}

struct thread *thread_at(unsigned index) { return &threads[index]; }

static void close_block(struct thread *thread)
{
    struct block_header *block = (struct block_header *)thread->block;
    uint64_t one = 1;

    if (!block)
        return;
    block->count = thread->block_records;
    block->crc = crc32_of(thread->block + BLOCK_HEADER_BYTES,
                          thread->block_records * sizeof(struct vt_record));
    atomic_signal_fence(memory_order_release);
    block->state = BLOCK_CLOSED;
    thread->block = NULL;
    /* A doorbell that has been rung and not heard is as good as rung. */
    if (write(doorbell, &one, sizeof(one)) < 0)
        errno = 0;
}

static bool open_block(struct thread *thread)
{
    uint32_t number = atomic_load(&header->blocks_used);

    do {
        if (number >= header->blocks_max)
            return false;
    } while (!atomic_compare_exchange_weak(&header->blocks_used, &number, number + 1));
    off_t start = (off_t)HEADER_BYTES + (off_t)number * BLOCK_BYTES;
    /* A full tmpfs would otherwise be a SIGBUS at the first store. */
    if (fallocate(file, 0, start, BLOCK_BYTES) < 0 && errno != EOPNOTSUPP)
        return false;
    thread->block = (uint8_t *)header + start;
    thread->block_records = 0;
    struct block_header *block = (struct block_header *)thread->block;
    memcpy(block->magic, "VBLK", 4);
    block->number = number;
    block->thread = thread->number;
    block->first_seq = thread->seq + 1;
    block->tid = (uint32_t)gettid();
    block->state = BLOCK_OPEN;
    return true;
}

struct vt_record *log_begin(struct thread *thread)
{
    if (!header)
        return NULL;
    if (thread->block && thread->block_records == RECORDS_PER_BLOCK)
        close_block(thread);
    if (!thread->block && !open_block(thread)) {
        atomic_fetch_add(&header->dropped, 1);
        return NULL;
    }
    struct vt_record *record =
        (struct vt_record *)(thread->block + BLOCK_HEADER_BYTES) + thread->block_records;
    memset(record, 0, sizeof(*record));
    record->offset = VT_NO_OFFSET;
    record->thread = thread->number;
    record->call = thread->call;
    record->call_seq = thread->call ? thread->call_seq : 0;
    record->channel = thread->channel;
    return record;
}

/* As record_check() in layout.py. */
static uint32_t check_of(const struct vt_record *record)
{
    const uint64_t factor = 0xd6e8feb86659fd93u;
    uint64_t words[8] = {0}, value = 0x9e3779b97f4a7c15u;

    memcpy(words, record, offsetof(struct vt_record, check));
    for (int i = 0; i < 8; i++) {
        value = (value ^ words[i]) * factor;
        value ^= value >> 32;
    }
    return (uint32_t)value;
}

void log_commit(struct thread *thread, struct vt_record *record)
{
    struct vt_record copy = *record;

    copy.seq = ++thread->seq;
    record->check = check_of(&copy);
    /* The sequence number goes last: with it the record counts as written. */
    atomic_signal_fence(memory_order_release);
    *(volatile uint32_t *)&record->seq = copy.seq;
    thread->block_records++;
}

void log_event(enum vt_kind kind, const struct channel *channel, uint64_t old_value,
               uint64_t new_value, uint16_t flags)
{
    log_detail(kind, channel, old_value, new_value, flags, VT_NO_OFFSET, 0);
}

void log_detail(enum vt_kind kind, const struct channel *channel, uint64_t old_value,
                uint64_t new_value, uint16_t flags, uint16_t offset, uint32_t operand)
{
    struct thread *thread = this_thread();
    int saved = errno;
    struct vt_record *record = log_begin(thread);

    if (record) {
        record->operand = operand;
        record->offset = offset;
        record->t0 = record->t1 = __rdtsc();
        record->kind = (uint8_t)kind;
        record->old = old_value;
        record->new_ = new_value;
        record->flags = flags;
        if (channel)
            record->channel = channel_number(channel);
        log_commit(thread, record);
    }
    errno = saved;
}

uint64_t log_records(void)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < thread_count(); i++)
        count += threads[i].seq;
    return count;
}

void log_finish(void)
{
    if (!header)
        return;
    for (unsigned i = 0; i < thread_count(); i++)
        close_block(&threads[i]);
    header->state = COMPLETE;
    log_forget();
}

/* Let go of the file without a word in it: in a child after fork, whose parent writes on. */
void log_forget(void)
{
    struct header *old = header;

    if (!old)
        return;
    header = NULL;
    atomic_fetch_add(&generation, 1);
    munmap(old, file_bytes);
    close(file);
    close(doorbell);
    file = doorbell = -1;
}
