/* What a program calls of libxenvchan: where each call begins and ends, and whose channel it is. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "access.h"
#include "calls.h"
#include "inject.h"
#include "segv.h"

VT_REAL(struct libxenvchan *, libxenvchan_server_init, struct xentoollog_logger *, int,
        const char *, size_t, size_t);
VT_REAL(struct libxenvchan *, libxenvchan_client_init, struct xentoollog_logger *, int,
        const char *);
VT_REAL(void, libxenvchan_close, struct libxenvchan *);
VT_REAL(int, libxenvchan_recv, struct libxenvchan *, void *, size_t);
VT_REAL(int, libxenvchan_read, struct libxenvchan *, void *, size_t);
VT_REAL(int, libxenvchan_send, struct libxenvchan *, const void *, size_t);
VT_REAL(int, libxenvchan_write, struct libxenvchan *, const void *, size_t);
VT_REAL(int, libxenvchan_wait, struct libxenvchan *);
VT_REAL(int, libxenvchan_fd_for_select, struct libxenvchan *);
VT_REAL(int, libxenvchan_is_open, struct libxenvchan *);
VT_REAL(int, libxenvchan_data_ready, struct libxenvchan *);
VT_REAL(int, libxenvchan_buffer_space, struct libxenvchan *);

void vt_log_of(const struct vt_channel *channel, struct vt_record *record)
{
    if (channel->session != vt_log_session())
        return;
    record->channel = channel->number;
    vt_log(vt_thread(), record);
}

static void log_at(const struct vt_channel *channel, uint64_t stamp, struct vt_record *record)
{
    record->offset = VT_NO_OFFSET;
    record->t0 = record->t1 = stamp;
    vt_log_of(channel, record);
}

static void log_now(const struct vt_channel *channel, struct vt_record record)
{
    log_at(channel, vt_stamp_after(), &record);
}

/* ---- attach ---- */

static void take_ring(struct vt_ring *ring, struct libxenvchan_ring *from)
{
    /* Rings of 1 and 2 KiB lie in the page: their data must not fault. */
    from->buffer = vt_real_address(from->buffer);
    ring->start = from->buffer;
    ring->bytes = (size_t)1 << from->order;
}

/*
 * Neither will there be a trace nor can the channel be used: the decoy is where we do not know, or
 * the page where we do not see it.
 */
static void refuse_structure(void)
{
    static const char message[] =
        "vchan-testbed tracer: this libxenvchan was not built from the header that the tracer was "
        "built with; build the tracer against it\n";

    if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0)
        errno = 0;
    abort();
}

void vt_attach(struct vt_channel *channel, struct libxenvchan *ctrl)
{
    int read_order = ctrl->read.order, write_order = ctrl->write.order;
    int left = channel->is_server ? read_order : write_order;
    int right = channel->is_server ? write_order : read_order;

    if ((void *)ctrl->ring != (vt_calls_only ? channel->page : channel->decoy))
        refuse_structure();
    channel->ctrl = ctrl;
    take_ring(&channel->rings[0], &ctrl->read);
    take_ring(&channel->rings[1], &ctrl->write);
    channel->attached = true;
    vt_log_attached(channel, (uint32_t)left, (uint32_t)right);
    log_now(channel, (struct vt_record){
                         .kind = VT_ATTACH,
                         .old = (uint64_t)left | (uint64_t)right << 16,
                         .new_ = ctrl->event_port,
                         .operand = channel->is_server ? VT_ROLE_SERVER : VT_ROLE_CLIENT,
                     });
}

void vt_log_detached(const struct vt_channel *channel)
{
    log_now(channel, (struct vt_record){ .kind = VT_DETACH });
}

/* By its structure, or at its first call by its handle, if its init was not seen. */
static struct vt_channel *channel_of(struct libxenvchan *ctrl)
{
    struct vt_channel *channel;

    if (!ctrl)
        return NULL;
    channel = vt_channel_of_ctrl(ctrl);
    if (channel || !ctrl->event)
        return channel;
    channel = vt_channel_of_event(ctrl->event);
    if (!channel)
        return NULL;
    vt_attach(channel, ctrl);
    return channel;
}

/* ---- enter and exit ---- */

struct call {
    struct vt_channel *channel; /* NULL: not traced, or inside of another call */
    struct vt_thread *thread;
    uint32_t session;
    bool segv_was_blocked;
};

/* A call's beginning or end, where faults are injected. */
static struct vt_moment bound(const struct call *call, uint8_t call_kind, uint8_t kind)
{
    return (struct vt_moment){
        .thread = call->thread,
        .channel = call->channel,
        .offset = VT_NO_OFFSET,
        .call = call_kind,
        .kind = kind,
    };
}

static struct vt_effect before_bound(const struct call *call, uint8_t call_kind, uint8_t kind)
{
    struct vt_moment moment = bound(call, call_kind, kind);

    return vt_inject_before(&moment);
}

static void behind_bound(const struct call *call, uint8_t call_kind, uint8_t kind,
                         const struct vt_effect *faults)
{
    struct vt_moment moment = bound(call, call_kind, kind);

    vt_inject_after(&moment, faults, true);
}

/* Looks from other threads see it soon enough; a fence would stand between two accesses. */
static void set_call(struct vt_thread *thread, uint8_t kind)
{
    atomic_store_explicit(&thread->call, kind, memory_order_relaxed);
}

static struct call enter(struct vt_channel *channel, enum vt_call kind, uint64_t size)
{
    struct call call = { channel, vt_thread(), vt_log_session(), false };
    struct vt_effect faults = { 0 };
    struct vt_record record;

    if (channel && channel->inherited && vt_on_inherited)
        vt_on_inherited();
    /*
     * Not only if it is recorded: a channel that outlives its trace faults all the same. And not at
     * each call of a library whose accesses do not: these are two system calls.
     */
    if (channel && (channel->in_init_or_close || vt_faults_are_due())) {
        vt_segv_take();
        call.segv_was_blocked = vt_segv_unblock();
    }
    if (!channel || !call.thread || channel->session != call.session || call.thread->call) {
        call.channel = NULL;
        return call;
    }
    if (vt_has_rules)
        faults = before_bound(&call, kind, VT_CALL_ENTER);
    /* 0 is no call, also behind the 2^32nd. */
    if (!++call.thread->call_seq)
        call.thread->call_seq = 1;
    set_call(call.thread, (uint8_t)kind);
    call.thread->channel = channel->number;
    call.thread->used = channel;
    /* A call that a handler jumped out of may have left some, of bytes that are gone. */
    call.thread->late_count = 0;
    record = (struct vt_record){ .kind = VT_CALL_ENTER, .old = size, .flags = faults.flags };
    log_at(channel, vt_stamp_of_beginning(), &record);
    if (vt_has_rules)
        behind_bound(&call, kind, VT_CALL_ENTER, &faults);
    return call;
}

static void log_exit(const struct call *call, int64_t result, int error)
{
    uint8_t kind = atomic_load_explicit(&call->thread->call, memory_order_relaxed);
    struct vt_effect faults = { 0 };
    struct vt_record record;

    if (call->thread->late_count)
        vt_digest_late_copies(call->channel);
    if (vt_has_rules)
        faults = before_bound(call, kind, VT_CALL_EXIT);
    record = (struct vt_record){
        .kind = VT_CALL_EXIT,
        .old = result < 0 ? (uint64_t)error : 0,
        .new_ = (uint64_t)result,
        .flags = faults.flags,
    };
    log_at(call->channel, vt_stamp_after(), &record);
    set_call(call->thread, VT_CALL_NONE);
    call->thread->used = NULL;
    if (vt_has_rules)
        behind_bound(call, kind, VT_CALL_EXIT, &faults);
}

static void leave(const struct call *call, int64_t result)
{
    int errno_before = errno;

    /* The recording that it began in may be over, and its thread's place somebody else's. */
    if (call->channel && call->session == vt_log_session())
        log_exit(call, result, errno_before);
    if (call->segv_was_blocked)
        vt_segv_block();
    errno = errno_before;
}

/* ---- init and close ---- */

void (*vt_before_init)(void);
void (*vt_on_inherited)(void);

static struct call enter_init(enum vt_call kind, uint64_t size)
{
    struct vt_thread *thread;
    struct vt_channel *channel;

    if (vt_before_init)
        vt_before_init();
    thread = vt_thread();

    if (!thread || thread->call)
        return (struct call){ 0 };
    vt_patch_again();
    channel = vt_channel_create(vt_log_session(), kind == VT_CALL_SERVER_INIT);
    thread->made = channel;
    if (channel)
        channel->in_init_or_close = true;
    else
        vt_log(NULL, NULL); /* too many channels at once: this one's records are missing */
    return enter(channel, kind, size);
}

static void leave_init(const struct call *call, struct libxenvchan *ctrl)
{
    int errno_before = errno;

    if (!call->channel) {
        leave(call, 0);
        return;
    }
    if (call->session == vt_log_session())
        call->thread->made = NULL;
    call->channel->in_init_or_close = false;
    if (ctrl)
        vt_attach(call->channel, ctrl);
    else
        vt_log_detached(call->channel);
    errno = errno_before;
    leave(call, ctrl ? 0 : -1);
    if (!ctrl)
        vt_channel_destroy(call->channel);
}

static struct libxenvchan *on_libxenvchan_server_init(struct xentoollog_logger *logger, int domid,
                                                      const char *path, size_t read_min,
                                                      size_t write_min)
{
    struct call call = enter_init(VT_CALL_SERVER_INIT, read_min | (uint64_t)write_min << 32);
    struct libxenvchan *ctrl =
        real_libxenvchan_server_init(logger, domid, path, read_min, write_min);

    leave_init(&call, ctrl);
    return ctrl;
}

static struct libxenvchan *on_libxenvchan_client_init(struct xentoollog_logger *logger, int domid,
                                                      const char *path)
{
    struct call call = enter_init(VT_CALL_CLIENT_INIT, 0);
    struct libxenvchan *ctrl = real_libxenvchan_client_init(logger, domid, path);

    leave_init(&call, ctrl);
    return ctrl;
}

static void on_libxenvchan_close(struct libxenvchan *ctrl)
{
    struct vt_channel *channel = channel_of(ctrl);
    struct call call = enter(channel, VT_CALL_CLOSE, 0);

    if (channel)
        channel->in_init_or_close = true;
    real_libxenvchan_close(ctrl);
    if (channel)
        vt_log_detached(channel);
    leave(&call, 0);
    if (channel)
        vt_channel_destroy(channel);
}

/* ---- all others ---- */

#define ON_TRANSFER(name, kind, pointer)                                                \
    static int on_libxenvchan_##name(struct libxenvchan *ctrl, pointer data, size_t size) \
    {                                                                                   \
        struct call call = enter(channel_of(ctrl), kind, size);                         \
        int result = real_libxenvchan_##name(ctrl, data, size);                         \
                                                                                        \
        leave(&call, result);                                                           \
        return result;                                                                  \
    }

#define ON_QUESTION(name, kind)                                    \
    static int on_libxenvchan_##name(struct libxenvchan *ctrl)     \
    {                                                              \
        struct call call = enter(channel_of(ctrl), kind, 0);       \
        int result = real_libxenvchan_##name(ctrl);                \
                                                                   \
        leave(&call, result);                                      \
        return result;                                             \
    }

ON_TRANSFER(read, VT_CALL_READ, void *)
ON_TRANSFER(recv, VT_CALL_RECV, void *)
ON_TRANSFER(write, VT_CALL_WRITE, const void *)
ON_TRANSFER(send, VT_CALL_SEND, const void *)
ON_QUESTION(wait, VT_CALL_WAIT)
ON_QUESTION(is_open, VT_CALL_IS_OPEN)
ON_QUESTION(data_ready, VT_CALL_DATA_READY)
ON_QUESTION(buffer_space, VT_CALL_BUFFER_SPACE)
ON_QUESTION(fd_for_select, VT_CALL_FD_FOR_SELECT)

/* ---- the table ---- */

#define IN_OTHERS(name) VT_PATCH(name, NULL, on_##name)

const struct vt_patch vt_api_patches[] = {
    IN_OTHERS(libxenvchan_server_init), IN_OTHERS(libxenvchan_client_init),
    IN_OTHERS(libxenvchan_close),       IN_OTHERS(libxenvchan_read),
    IN_OTHERS(libxenvchan_recv),        IN_OTHERS(libxenvchan_write),
    IN_OTHERS(libxenvchan_send),        IN_OTHERS(libxenvchan_wait),
    IN_OTHERS(libxenvchan_is_open),     IN_OTHERS(libxenvchan_data_ready),
    IN_OTHERS(libxenvchan_buffer_space), IN_OTHERS(libxenvchan_fd_for_select),
};

const size_t vt_api_patches_count = sizeof(vt_api_patches) / sizeof(vt_api_patches[0]);
