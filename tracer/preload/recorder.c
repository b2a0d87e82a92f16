/*
 * A program that knows nothing of it is traced: this library is loaded before all others (LD_PRELOAD).
 *
 * Says nothing and does nothing until libxenvchan is there, and makes no file until a channel is
 * opened. What it is to do stands in the environment:
 *
 *     VCHAN_TRACER_DIR       where traces go, one file a process: NAME-PID.vtrace; without it: nowhere
 *     VCHAN_TRACER_DOMID     the domain that this is; -1 if nobody knows
 *     VCHAN_TRACER_LEVEL     exact, calls
 *     VCHAN_TRACER_VARIANT   translation, emulation
 *     VCHAN_TRACER_ORDER     kept, full
 *     VCHAN_TRACER_BYTES     the most that a file may grow to
 *     VCHAN_TRACER_RING      a flight recorder: so many bytes for each thread's last records; 0: none
 *     VCHAN_TRACER_SETTLE    it is frozen when no record has come for so many milliseconds; 0: never
 *     VCHAN_TRACER_SIGNAL    the number of the signal that freezes it; 0: none
 *     VCHAN_TRACER_RUN       16 bytes as hex, the same for both ends
 *     VCHAN_TRACER_XEN       which Xen this is
 *
 * A program that cannot be traced is ended, with status 4, before it opens a channel.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "blocks.h"
#include "calls.h"
#include "channels.h"
#include "clock.h"
#include "freeze.h"
#include "objects.h"
#include "segv.h"
#include "tracer.h"

#define FORMAT_VERSION 4
#define STATUS_REFUSED 4
#define NAMES_MAX 1000
#define BYTES_BY_DEFAULT (1ull << 30)
#define CALIBRATION_NANOSECONDS 10000000
#define LEVEL_EXACT 1
#define LEVEL_CALLS 2
#define VARIANT_NONE 0
#define VARIANT_EMULATION 1
#define VARIANT_TRANSLATION 2

static struct {
    pid_t pid; /* whose trace is open; 0: none */
    int fd;
    int bells[2];
    char path[512];
    bool hz_is_told;
    uint64_t start_nanoseconds;
    bool found; /* libxenvchan, and its table is changed */
} recorder;

static __thread bool is_looking; /* what looks or begins calls dlopen itself */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);

    return value && *value ? value : otherwise;
}

static bool is_set(const char *name, const char *value)
{
    return !strcmp(setting(name, ""), value);
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
    char text[768];
    va_list arguments;
    int length = snprintf(text, sizeof(text), "vchan-testbed tracer: ");

    va_start(arguments, format);
    vsnprintf(text + length, sizeof(text) - (size_t)length - 1, format, arguments);
    va_end(arguments);
    strcat(text, "\n");
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        errno = 0;
}

static void refuse(const char *what, const char *detail)
{
    say("%s is not run, because it cannot be traced: %s %s", program_invocation_short_name, what,
        detail);
    syscall(SYS_exit_group, STATUS_REFUSED);
}

/* ---- the file ---- */

static void open_file(uint32_t blocks_max)
{
    off_t bytes = VT_HEADER_BYTES + (off_t)blocks_max * VT_BLOCK_BYTES;
    const char *folder = getenv("VCHAN_TRACER_DIR");

    /* One process may have several, each after another: it may call exec. */
    for (unsigned number = 0; number < NAMES_MAX; number++) {
        char more[16] = "";

        if (number)
            snprintf(more, sizeof(more), "-%u", number);
        snprintf(recorder.path, sizeof(recorder.path), "%s/%s-%d%s.vtrace", folder,
                 program_invocation_short_name, (int)getpid(), more);
        recorder.fd = open(recorder.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (recorder.fd >= 0 || errno != EEXIST)
            break;
    }
    if (recorder.fd < 0 || ftruncate(recorder.fd, bytes))
        refuse(recorder.path, strerror(errno));
}

static void take_run_id(uint8_t id[16])
{
    const char *text = setting("VCHAN_TRACER_RUN", "");

    for (unsigned i = 0; i < 16 && strlen(text) >= 32; i++) {
        unsigned byte = 0;

        sscanf(text + 2 * i, "%2x", &byte);
        id[i] = (uint8_t)byte;
    }
}

static void measure_clock(struct vt_header *header)
{
    uint64_t first, start, last, end, told = vt_clock_told_hz(), measured;

    vt_clock_pair(&first, &start);
    do
        vt_clock_pair(&last, &end);
    while (end - start < CALIBRATION_NANOSECONDS);
    measured = (uint64_t)((double)(last - first) * 1e9 / (double)(end - start));
    /* What it says is taken if it is not off by more than a fiftieth. */
    recorder.hz_is_told = told > measured - measured / 50 && told < measured + measured / 50;
    recorder.start_nanoseconds = start;
    header->tsc_hz = recorder.hz_is_told ? told : measured;
    header->start_tsc = first;
}

static uint32_t number_of(const char *name)
{
    return (uint32_t)strtoul(setting(name, "0"), NULL, 10);
}

static void fill_header(struct vt_header *header, uint32_t blocks_max,
                        const struct vt_translated *made)
{
    bool calls_only = is_set("VCHAN_TRACER_LEVEL", "calls");
    struct timespec now;
    struct utsname host;

    clock_gettime(CLOCK_REALTIME, &now);
    uname(&host);
    memcpy(header->magic, "VCHTRACE", 8);
    header->version = FORMAT_VERSION;
    header->header_bytes = VT_HEADER_BYTES;
    header->record_bytes = sizeof(struct vt_record);
    header->block_bytes = VT_BLOCK_BYTES;
    header->blocks_max = blocks_max;
    header->state = 1;
    header->level = calls_only ? LEVEL_CALLS : LEVEL_EXACT;
    header->variant = calls_only       ? VARIANT_NONE
                      : made->is_there ? VARIANT_TRANSLATION
                                       : VARIANT_EMULATION;
    header->order = vt_order_kept;
    header->ring_blocks = (number_of("VCHAN_TRACER_RING") + VT_BLOCK_BYTES - 1) / VT_BLOCK_BYTES;
    header->settle_milliseconds = number_of("VCHAN_TRACER_SETTLE");
    header->domid = (uint32_t)atoi(setting("VCHAN_TRACER_DOMID", "-1"));
    header->peer_domid = VT_NOT_KNOWN;
    header->start_realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    measure_clock(header);
    take_run_id(header->run_id);
    snprintf(header->xen_version, sizeof(header->xen_version), "%s",
             setting("VCHAN_TRACER_XEN", ""));
    snprintf(header->library, sizeof(header->library), "%s", vt_library.name);
    snprintf(header->kernel, sizeof(header->kernel), "%.63s", host.release);
    snprintf(header->program, sizeof(header->program), "%s", program_invocation_short_name);
}

/* ---- beginning and end ---- */

static uint32_t blocks_for(void)
{
    uint64_t bytes = strtoull(setting("VCHAN_TRACER_BYTES", "0"), NULL, 10);
    uint64_t blocks;

    if (!bytes)
        bytes = BYTES_BY_DEFAULT;
    blocks = bytes > VT_HEADER_BYTES ? (bytes - VT_HEADER_BYTES) / VT_BLOCK_BYTES : 0;
    if (!blocks || blocks > 1u << 20)
        refuse("VCHAN_TRACER_BYTES", "is out of range");
    return (uint32_t)blocks;
}

static void take_freeze_signal(void)
{
    int number = (int)number_of("VCHAN_TRACER_SIGNAL");
    int error = number ? freeze_take(number) : 0;

    if (error)
        refuse("VCHAN_TRACER_SIGNAL", strerror(-error));
}

static void begin(void)
{
    union {
        struct vt_header fields;
        uint8_t page[VT_HEADER_BYTES];
    } header = { 0 };
    struct vt_manner manner = {
        .translate = !is_set("VCHAN_TRACER_VARIANT", "emulation"),
        .keep_order = !is_set("VCHAN_TRACER_ORDER", "full"),
        .calls_only = is_set("VCHAN_TRACER_LEVEL", "calls"),
    };
    uint32_t blocks_max = blocks_for();
    struct vt_translated made;

    if (vt_prepare(&manner, &made))
        refuse(vt_problem(), "");
    fill_header(&header.fields, blocks_max, &made);
    if (header.fields.ring_blocks > blocks_max)
        refuse("VCHAN_TRACER_RING", "is larger than the file may grow to");
    open_file(blocks_max);
    for (unsigned i = 0; i < 2; i++)
        recorder.bells[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vt_start(recorder.fd, header.page, blocks_max, recorder.bells[0], recorder.bells[1], NULL,
                 0))
        refuse(vt_problem(), "");
    recorder.pid = getpid();
    if (header.fields.ring_blocks)
        take_freeze_signal();
}

/* Before a channel is opened. */
static void begin_if_none(void)
{
    is_looking = true;
    pthread_mutex_lock(&lock);
    if (recorder.pid != getpid())
        begin();
    pthread_mutex_unlock(&lock);
    is_looking = false;
}

static uint64_t refined_hz(const struct vt_header *header)
{
    uint64_t ticks, nanoseconds;

    vt_clock_pair(&ticks, &nanoseconds);
    return (uint64_t)((double)(ticks - header->start_tsc) * 1e9 /
                      (double)(nanoseconds - recorder.start_nanoseconds));
}

static void end(void)
{
    uint32_t blocks;

    pthread_mutex_lock(&lock);
    if (recorder.pid == getpid()) {
        recorder.pid = 0;
        if (!recorder.hz_is_told)
            vt_blocks_header()->tsc_hz = refined_hz(vt_blocks_header());
        blocks = vt_stop();
        if (ftruncate(recorder.fd, VT_HEADER_BYTES + (off_t)blocks * VT_BLOCK_BYTES))
            errno = 0;
        close(recorder.fd);
        for (unsigned i = 0; i < 2; i++)
            close(recorder.bells[i]);
    }
    pthread_mutex_unlock(&lock);
}

/*
 * It has no file to write to: its parent's has its parent's records, in their order. If it went on, that
 * trace would lack steps of the channel, and the library would be blamed for what follows from them.
 */
static void refuse_inherited(void)
{
    say("%s (%d) is ended: it uses a channel that its parent opened, and that is in no trace. Open the "
        "channel in the process that uses it",
        program_invocation_short_name, (int)getpid());
    syscall(SYS_exit_group, STATUS_REFUSED);
}

/* A child has its parent's channels, and no trace of its own until it opens one. */
static void in_child(void)
{
    pthread_mutex_init(&lock, NULL);
    if (recorder.pid && recorder.fd >= 0)
        close(recorder.fd);
    recorder.pid = 0;
    recorder.fd = -1;
}

static void look_for_library(void)
{
    if (is_looking)
        return;
    is_looking = true;
    pthread_mutex_lock(&lock);
    if (recorder.found) {
        vt_patch_again();
    } else if (vt_find_library()) {
        if (vt_catch())
            refuse(vt_problem(), "");
        recorder.found = true;
    }
    pthread_mutex_unlock(&lock);
    is_looking = false;
}

static void take_originals(void);

__attribute__((constructor)) static void load(void)
{
    take_originals();
    if (!getenv("VCHAN_TRACER_DIR"))
        return;
    vt_before_init = begin_if_none;
    vt_on_inherited = refuse_inherited;
    pthread_atfork(NULL, NULL, in_child);
    look_for_library();
}

__attribute__((destructor)) static void unload(void)
{
    end();
}

/* ---- functions that are stood in for ---- */

#define EXPORTED __attribute__((visibility("default")))

typedef void (*handler_t)(int);

static void *(*real_dlopen)(const char *, int);
static void (*real_exit)(int) __attribute__((noreturn));
static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);
static handler_t (*real_signal)(int, handler_t);

__attribute__((used)) static void *(*real_dlsym)(void *, const char *);

static void take_originals(void)
{
    /* dlsym stands in another version in older libraries. */
    *(void **)&real_dlsym = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    if (!real_dlsym)
        *(void **)&real_dlsym = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    *(void **)&real_dlopen = real_dlsym(RTLD_NEXT, "dlopen");
    *(void **)&real_exit = real_dlsym(RTLD_NEXT, "_exit");
    *(void **)&real_sigaction = real_dlsym(RTLD_NEXT, "sigaction");
    *(void **)&real_signal = real_dlsym(RTLD_NEXT, "signal");
    vt_sigaction = real_sigaction;
    vt_dlsym = real_dlsym;
}

/* Whoever asks for a function of libxenvchan by its name gets the one that stands in for it. */
__attribute__((used)) static int is_stood_in_for(const char *name)
{
    if (!real_dlsym)
        take_originals();
    return recorder.found && !is_looking && !strncmp(name, "libxenvchan_", 12);
}

__attribute__((used)) static void *find_stand_in(void *handle, const char *name)
{
    void *found = real_dlsym(handle, name);

    for (size_t i = 0; found && i < vt_api_patches_count; i++)
        if (!strcmp(name, vt_api_patches[i].name) && vt_is_original(&vt_api_patches[i], found))
            return vt_api_patches[i].in_others;
    return found;
}

/* All others go on to dlsym itself, which looks at its return address for RTLD_NEXT: a jump. */
__asm__(".text\n"
        ".globl dlsym\n"
        ".type dlsym, @function\n"
        "dlsym:\n"
        "    pushq %rdi\n"
        "    pushq %rsi\n"
        "    subq $8, %rsp\n"
        "    movq %rsi, %rdi\n"
        "    call is_stood_in_for\n"
        "    addq $8, %rsp\n"
        "    popq %rsi\n"
        "    popq %rdi\n"
        "    testl %eax, %eax\n"
        "    jnz find_stand_in\n"
        "    jmp *real_dlsym(%rip)\n"
        ".size dlsym, . - dlsym\n");

/* libxenvchan may come with it. */
EXPORTED void *dlopen(const char *name, int flags)
{
    void *handle;

    if (!real_dlopen)
        take_originals();
    handle = real_dlopen(name, flags);
    if (handle && vt_before_init)
        look_for_library();
    return handle;
}

/* It runs no destructors. A child of vfork, which has our memory, has another process id. */
EXPORTED void _exit(int status)
{
    end();
    if (!real_exit)
        take_originals();
    real_exit(status);
}

EXPORTED void _Exit(int status)
{
    _exit(status);
}

EXPORTED int sigaction(int number, const struct sigaction *restrict action,
                       struct sigaction *restrict before)
{
    if (!real_sigaction)
        take_originals();
    if ((number == SIGSEGV && vt_segv_set(action, before)) || freeze_set(number, action, before))
        return 0;
    return real_sigaction(number, action, before);
}

EXPORTED handler_t signal(int number, handler_t handler)
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART }, before;

    if (!real_signal)
        take_originals();
    if ((number == SIGSEGV && vt_segv_set(&action, &before)) ||
        freeze_set(number, &action, &before))
        return before.sa_handler;
    return real_signal(number, handler);
}
