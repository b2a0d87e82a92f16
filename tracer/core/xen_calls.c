/*
 * What libxenvchan calls: event channel, grants, and the memory functions that see its pages.
 *
 * The rule is: a decoy goes to libxenvchan where the page would, and comes back as the page before
 * it reaches Xen's libraries.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#include "access.h"
#include "calls.h"
#include "digest.h"
#include "inject.h"

#define LEFT_INDICES 0
#define RIGHT_INDICES 8
#define CLI_LIVE 20
#define SRV_LIVE 21

VT_REAL(xenevtchn_handle *, xenevtchn_open, struct xentoollog_logger *, unsigned);
VT_REAL(int, xenevtchn_close, xenevtchn_handle *);
VT_REAL(int, xenevtchn_fd, xenevtchn_handle *);
VT_REAL(int, xenevtchn_notify, xenevtchn_handle *, evtchn_port_t);
VT_REAL(xenevtchn_port_or_error_t, xenevtchn_pending, xenevtchn_handle *);
VT_REAL(int, xenevtchn_unmask, xenevtchn_handle *, evtchn_port_t);
VT_REAL(xenevtchn_port_or_error_t, xenevtchn_bind_unbound_port, xenevtchn_handle *, uint32_t);
VT_REAL(xenevtchn_port_or_error_t, xenevtchn_bind_interdomain, xenevtchn_handle *, uint32_t,
        evtchn_port_t);
VT_REAL(int, xenevtchn_unbind, xenevtchn_handle *, evtchn_port_t);
VT_REAL(void *, xengntshr_share_page_notify, xengntshr_handle *, uint32_t, uint32_t *, int,
        uint32_t, evtchn_port_t);
VT_REAL(void *, xengntshr_share_pages, xengntshr_handle *, uint32_t, int, uint32_t *, int);
VT_REAL(int, xengntshr_unshare, xengntshr_handle *, void *, uint32_t);
VT_REAL(void *, xengnttab_map_grant_ref_notify, xengnttab_handle *, uint32_t, uint32_t, int,
        uint32_t, evtchn_port_t);
VT_REAL(void *, xengnttab_map_domain_grant_refs, xengnttab_handle *, uint32_t, uint32_t,
        uint32_t *, int);
VT_REAL(int, xengnttab_unmap, xengnttab_handle *, void *, uint32_t);
VT_REAL(int, munmap, void *, size_t);
VT_REAL(void *, memcpy, void *, const void *, size_t);
VT_REAL(void *, __memcpy_chk, void *, const void *, size_t, size_t);
VT_REAL(void *, memset, void *, int, size_t);
VT_REAL(void *, __memset_chk, void *, int, size_t, size_t);

/* ---- records ---- */

struct event {
    struct vt_channel *channel; /* NULL: not a traced one */
    struct vt_record record;
    struct vt_thread *asked;    /* the thread, if the rules of faults were asked, else NULL */
    struct vt_effect effect;    /* what they say */
};

static struct vt_moment moment_of(const struct event *event)
{
    return (struct vt_moment){
        .thread = event->asked,
        .channel = event->channel,
        .site = event->record.site,
        .offset = VT_NO_OFFSET,
        .call = event->asked->call,
        .kind = event->record.kind,
    };
}

/* What faults make of it; may hold this thread for long. */
static void ask_for_faults(struct event *event)
{
    struct vt_moment moment;

    event->asked = event->channel->session == vt_log_session() ? vt_thread() : NULL;
    if (!event->asked)
        return;
    moment = moment_of(event);
    event->effect = vt_inject_before(&moment);
    event->record.flags |= event->effect.flags;
}

static void tell_faults(const struct event *event, bool is_done)
{
    struct vt_moment moment = moment_of(event);

    vt_inject_after(&moment, &event->effect, is_done);
}

/* To be completed with what came of it and handed to end(). */
static struct event begin(struct vt_channel *channel, enum vt_kind kind, const void *caller)
{
    struct event event = { .channel = channel };

    if (!channel)
        return event;
    event.record.kind = (uint8_t)kind;
    event.record.offset = VT_NO_OFFSET;
    vt_site_of(caller, &event.record.site);
    if (vt_has_rules)
        ask_for_faults(&event);
    event.record.t0 = vt_between_before();
    return event;
}

static void end(struct event *event, uint64_t result)
{
    int errno_before = errno;

    if (!event->channel)
        return;
    event->record.t1 = vt_between_after();
    event->record.new_ = result;
    vt_log_of(event->channel, &event->record);
    if (event->asked)
        tell_faults(event, (int64_t)result >= 0);
    errno = errno_before;
}

#define CALLER __builtin_return_address(0)
#define SIGNED(value) ((uint64_t)(int64_t)(value))

/* ---- event channel ---- */

static struct vt_channel *channel_in_making(void)
{
    struct vt_thread *thread = vt_thread();

    return thread ? thread->made : NULL;
}

/*
 * A program whose call of the init was not seen (it got the function's address from dlsym, say,
 * or was loaded later) gets its channel here.
 */
static void make_unseen_channel(void)
{
    struct vt_thread *thread;

    if (vt_before_init)
        vt_before_init();
    thread = vt_thread();
    if (!thread || thread->call)
        return;
    vt_patch_again();
    thread->made = vt_channel_create(vt_log_session(), false);
}

static xenevtchn_handle *on_xenevtchn_open(struct xentoollog_logger *logger, unsigned flags)
{
    xenevtchn_handle *event = real_xenevtchn_open(logger, flags);
    int errno_before = errno;
    struct vt_channel *channel;

    make_unseen_channel();
    channel = channel_in_making();
    if (channel && event) {
        channel->event = event;
        channel->event_fd = real_xenevtchn_fd(event);
    }
    errno = errno_before;
    return event;
}

static int on_xenevtchn_close(xenevtchn_handle *handle)
{
    struct event event = begin(vt_channel_of_event(handle), VT_EVTCHN_CLOSE, CALLER);
    int result;

    /* Before: another channel may get the same handle and descriptor at once. */
    if (event.channel) {
        event.channel->event = NULL;
        event.channel->event_fd = -1;
    }
    result = real_xenevtchn_close(handle);
    end(&event, SIGNED(result));
    /* The page was given back before; if no call that we saw is closing it, this was the end. */
    if (event.channel && !event.channel->page && !event.channel->in_init_or_close) {
        vt_log_detached(event.channel);
        vt_channel_destroy(event.channel);
    }
    return result;
}

static xenevtchn_port_or_error_t on_xenevtchn_bind_unbound_port(xenevtchn_handle *handle,
                                                                uint32_t domid)
{
    struct event event = begin(vt_channel_of_event(handle), VT_BIND_UNBOUND, CALLER);
    xenevtchn_port_or_error_t port = real_xenevtchn_bind_unbound_port(handle, domid);

    if (event.channel) {
        event.channel->is_server = true;
        event.channel->peer_domid = domid;
    }
    event.record.operand = domid;
    end(&event, SIGNED(port));
    return port;
}

static xenevtchn_port_or_error_t on_xenevtchn_bind_interdomain(xenevtchn_handle *handle,
                                                               uint32_t domid,
                                                               evtchn_port_t remote_port)
{
    struct event event = begin(vt_channel_of_event(handle), VT_BIND_INTERDOMAIN, CALLER);
    xenevtchn_port_or_error_t port = real_xenevtchn_bind_interdomain(handle, domid, remote_port);

    if (event.channel)
        event.channel->peer_domid = domid;
    event.record.old = remote_port;
    event.record.operand = domid;
    end(&event, SIGNED(port));
    return port;
}

static int on_xenevtchn_unbind(xenevtchn_handle *handle, evtchn_port_t port)
{
    struct event event = begin(vt_channel_of_event(handle), VT_UNBIND, CALLER);
    int result = real_xenevtchn_unbind(handle, port);

    event.record.old = port;
    end(&event, SIGNED(result));
    return result;
}

/*
 * An operation on a port, as often as a fault wants it: not at all (it is then reported as done), twice,
 * or once.
 */
static int operate(struct event *event, int (*operation)(xenevtchn_handle *, evtchn_port_t),
                   xenevtchn_handle *handle, evtchn_port_t port)
{
    int result = 0;

    event->record.old = port;
    if (event->effect.fault) {
        struct vt_moment moment = moment_of(event);

        vt_inject_log(&moment, &event->effect, 0);
        event->record.flags |= VT_FLAG_FAULT_INJECTED;
        event->record.t0 = vt_between_before();
    }
    if (event->effect.fault == VT_FAULT_REPEAT)
        operation(handle, port);
    if (event->effect.fault != VT_FAULT_DROP)
        result = operation(handle, port);
    end(event, SIGNED(result));
    return result;
}

static int on_xenevtchn_notify(xenevtchn_handle *handle, evtchn_port_t port)
{
    struct event event = begin(vt_channel_of_event(handle), VT_NOTIFY, CALLER);

    return operate(&event, real_xenevtchn_notify, handle, port);
}

static xenevtchn_port_or_error_t wait_pending(struct event *enter, xenevtchn_handle *handle)
{
    struct event leave = *enter;
    xenevtchn_port_or_error_t port;

    end(enter, 0);
    leave.record.kind = VT_PENDING_EXIT;
    if (leave.asked)
        ask_for_faults(&leave);
    port = real_xenevtchn_pending(handle);
    if (leave.channel) {
        /* It may have blocked for long: the stamp before it is another record's. */
        leave.record.t0 = vt_between_before();
        leave.record.old = port < 0 ? (uint64_t)errno : 0;
    }
    end(&leave, SIGNED(port));
    return port;
}

static xenevtchn_port_or_error_t on_xenevtchn_pending(xenevtchn_handle *handle)
{
    struct vt_channel *channel = vt_channel_of_event(handle);
    struct event enter;

    /* The peer has its event, or needs none, when this end begins to wait for one. */
    if (channel)
        vt_digest_late_copies(channel);
    enter = begin(channel, VT_PENDING_ENTER, CALLER);
    return wait_pending(&enter, handle);
}

static int on_xenevtchn_unmask(xenevtchn_handle *handle, evtchn_port_t port)
{
    struct event event = begin(vt_channel_of_event(handle), VT_UNMASK, CALLER);

    return operate(&event, real_xenevtchn_unmask, handle, port);
}

/* Wrappers of libxenvchan, such as Qubes', move indices and send events by themselves. */

static struct event begin_by_application(xenevtchn_handle *handle, enum vt_kind kind)
{
    struct event event = begin(vt_channel_of_event(handle), kind, NULL);

    event.record.flags = VT_FLAG_BY_APPLICATION;
    return event;
}

static int by_application_notify(xenevtchn_handle *handle, evtchn_port_t port)
{
    struct event event = begin_by_application(handle, VT_NOTIFY);

    return operate(&event, real_xenevtchn_notify, handle, port);
}

static xenevtchn_port_or_error_t by_application_pending(xenevtchn_handle *handle)
{
    struct event enter = begin_by_application(handle, VT_PENDING_ENTER);

    return wait_pending(&enter, handle);
}

static int by_application_unmask(xenevtchn_handle *handle, evtchn_port_t port)
{
    struct event event = begin_by_application(handle, VT_UNMASK);

    return operate(&event, real_xenevtchn_unmask, handle, port);
}

/* ---- the shared page ---- */

static void *hand_out(struct event *event, void *page, uint32_t ref, uint32_t live_offset)
{
    event->record.old = ref;
    event->record.offset = (uint16_t)live_offset;
    if (page && event->channel)
        vt_channel_set_page(event->channel, page);
    end(event, page != NULL);
    return page && event->channel && !vt_calls_only ? event->channel->decoy : page;
}

static void *on_xengntshr_share_page_notify(xengntshr_handle *handle, uint32_t domid,
                                            uint32_t *ref, int writable, uint32_t notify_offset,
                                            evtchn_port_t notify_port)
{
    struct event event = begin(channel_in_making(), VT_SHARE_PAGE, CALLER);
    void *page = real_xengntshr_share_page_notify(handle, domid, ref, writable, notify_offset,
                                                  notify_port);

    return hand_out(&event, page, *ref, notify_offset);
}

static void *on_xengnttab_map_grant_ref_notify(xengnttab_handle *handle, uint32_t domid,
                                               uint32_t ref, int prot, uint32_t notify_offset,
                                               evtchn_port_t notify_port)
{
    struct event event = begin(channel_in_making(), VT_MAP_PAGE, CALLER);
    void *page = real_xengnttab_map_grant_ref_notify(handle, domid, ref, prot, notify_offset,
                                                     notify_port);

    return hand_out(&event, page, ref, notify_offset);
}

/* Nobody of this side can look at it later: all that it stored has to be there now. */
static void write_down_page(struct vt_channel *channel, const void *caller)
{
    struct event event = begin(channel, VT_PAGE, caller);
    uint64_t right;

    memcpy(&event.record.old, channel->page + LEFT_INDICES, sizeof(event.record.old));
    memcpy(&right, channel->page + RIGHT_INDICES, sizeof(right));
    memcpy(&event.record.operand, channel->page + CLI_LIVE, sizeof(event.record.operand));
    end(&event, right);
}

/* Unmapping makes the kernel clear the live byte and raise the event. */
static struct event begin_take_back(struct vt_channel *channel, enum vt_kind kind,
                                    const void *caller)
{
    unsigned live_offset = kind == VT_UNSHARE_PAGE ? SRV_LIVE : CLI_LIVE;
    uint8_t live = __atomic_load_n(channel->page + live_offset, __ATOMIC_RELAXED);
    struct event event;

    if (!vt_calls_only)
        write_down_page(channel, caller);
    event = begin(channel, kind, caller);
    event.record.old = live;
    event.record.offset = (uint16_t)live_offset;
    event.record.width = 1;
    return event;
}

/* The one whose page, or whose decoy in its place, begins here and is not given back yet. */
static struct vt_channel *mapped_channel(const void *address)
{
    struct vt_channel *channel =
        vt_calls_only ? vt_channel_of_page(address) : vt_channel_of_decoy(address);

    return channel && channel->page ? channel : NULL;
}

static int on_xengntshr_unshare(xengntshr_handle *handle, void *start, uint32_t count)
{
    struct vt_channel *channel = mapped_channel(start);
    uint8_t *page;
    struct event event;
    int result;

    if (!channel)
        return real_xengntshr_unshare(handle, start, count);
    event = begin_take_back(channel, VT_UNSHARE_PAGE, CALLER);
    page = channel->page;
    vt_channel_set_page(channel, NULL);
    result = real_xengntshr_unshare(handle, page, count);
    end(&event, SIGNED(result));
    return result;
}

static int on_xengnttab_unmap(xengnttab_handle *handle, void *start, uint32_t count)
{
    struct vt_channel *channel = mapped_channel(start);
    uint8_t *page;
    struct event event;
    int result;

    if (!channel)
        return real_xengnttab_unmap(handle, start, count);
    event = begin_take_back(channel, VT_UNMAP_PAGE, CALLER);
    page = channel->page;
    vt_channel_set_page(channel, NULL);
    result = real_xengnttab_unmap(handle, page, count);
    end(&event, SIGNED(result));
    return result;
}

/* ---- the rings ---- */

static uint16_t offset_in_page(const struct vt_channel *channel, const void *refs)
{
    const uint8_t *start = !channel ? NULL : vt_calls_only ? channel->page : channel->decoy;
    size_t offset = (size_t)((const uint8_t *)refs - start);

    return start && offset < VT_PAGE_BYTES ? (uint16_t)offset : VT_NO_OFFSET;
}

static void *on_xengntshr_share_pages(xengntshr_handle *handle, uint32_t domid, int count,
                                      uint32_t *refs, int writable)
{
    uint32_t *real_refs = vt_real_address(refs);
    struct event event = begin(channel_in_making(), VT_SHARE_RING, CALLER);
    void *ring = real_xengntshr_share_pages(handle, domid, count, real_refs, writable);

    event.record.offset = offset_in_page(event.channel, refs);
    event.record.old = ring ? real_refs[0] : 0;
    end(&event, ring ? (uint64_t)count : 0);
    return ring;
}

static void *on_xengnttab_map_domain_grant_refs(xengnttab_handle *handle, uint32_t count,
                                                uint32_t domid, uint32_t *refs, int prot)
{
    uint32_t *real_refs = vt_real_address(refs);
    struct event event = begin(channel_in_making(), VT_MAP_RING, CALLER);
    void *ring = real_xengnttab_map_domain_grant_refs(handle, count, domid, real_refs, prot);

    event.record.offset = offset_in_page(event.channel, refs);
    event.record.old = real_refs[0];
    end(&event, ring ? count : 0);
    return ring;
}

static int on_munmap(void *start, size_t bytes)
{
    struct vt_channel *channel = mapped_channel(start);
    uint8_t *page;
    struct event event;
    int result;

    if (!channel)
        return real_munmap(start, bytes);
    /* Libraries up to Xen 4.4 gave the page back so. */
    event = begin_take_back(channel, channel->is_server ? VT_UNSHARE_PAGE : VT_UNMAP_PAGE, CALLER);
    page = channel->page;
    vt_channel_set_page(channel, NULL);
    result = real_munmap(page, bytes);
    end(&event, SIGNED(result));
    return result;
}

/* ---- memory functions ---- */

/* The channel whose ring a copy touches, of the one that this thread's call is about. */
static struct vt_channel *copied_ring(const void *to, const void *from, struct vt_record *record)
{
    struct vt_thread *thread = vt_thread();
    struct vt_channel *channel = thread ? thread->used : NULL;
    size_t offset;

    if (!channel || vt_calls_only)
        return NULL;
    if (vt_channel_ring_of(channel, to, &offset) == 1)
        record->op = VT_COPY_IN;
    else if (vt_channel_ring_of(channel, from, &offset) == 0)
        record->op = VT_COPY_OUT;
    else
        return NULL;
    record->operand = (uint32_t)offset;
    return channel;
}

/*
 * What takes longer to digest than to write down once more is put off until the peer has its event:
 * else each end would wait for the other one's digests. The bytes stay as they are until then: they are
 * the application's, and it waits for the call to return.
 */
#define DIGESTED_AT_ONCE_BYTES 1024

static bool is_put_off(const struct vt_thread *thread, size_t bytes)
{
    return bytes > DIGESTED_AT_ONCE_BYTES && thread->late_count < VT_LATE_COPIES_MAX;
}

/* Of the copy whose record is the next one. */
static void put_off(struct vt_thread *thread, const uint8_t *bytes, size_t count)
{
    thread->late[thread->late_count++] = (struct vt_late_copy){ bytes, count, (uint32_t)thread->seq + 1 };
}

static void *on_memcpy(void *to, const void *from, size_t bytes)
{
    struct vt_record record = { 0 };
    struct vt_channel *channel = copied_ring(to, from, &record);
    struct event event = begin(channel, VT_COPY, CALLER);
    const void *of_application = record.op == VT_COPY_IN ? from : to;
    struct vt_thread *thread = channel ? vt_thread() : NULL;
    bool later = thread && is_put_off(thread, bytes);

    event.record.op = record.op;
    event.record.operand = record.operand;
    if (later)
        put_off(thread, of_application, bytes);
    /* A ring inside the page is reached through the decoy until the structure is repaired. */
    real_memcpy(vt_real_address(to), vt_real_address(from), bytes);
    if (later)
        event.record.flags |= VT_FLAG_DIGEST_FOLLOWS;
    else if (channel)
        event.record.old = vt_digest(of_application, bytes);
    end(&event, bytes);
    return to;
}

void vt_digest_late_copies(const struct vt_channel *channel)
{
    struct vt_thread *thread = vt_thread();

    if (!thread)
        return;
    for (uint32_t i = 0; i < thread->late_count; i++) {
        const struct vt_late_copy *copy = &thread->late[i];
        struct vt_record record = {
            .kind = VT_DIGEST,
            .offset = VT_NO_OFFSET,
            .operand = copy->seq,
            .new_ = copy->count,
            .t0 = vt_between_before(),
        };

        record.old = vt_digest(copy->bytes, copy->count);
        record.t1 = vt_between_after();
        vt_log_of(channel, &record);
    }
    thread->late_count = 0;
}

static void *on___memcpy_chk(void *to, const void *from, size_t bytes, size_t room)
{
    if (vt_is_decoy(to) || bytes <= room)
        return on_memcpy(to, from, bytes);
    return real___memcpy_chk(to, from, bytes, room);
}

static void *on_memset(void *to, int value, size_t bytes)
{
    struct vt_channel *channel = vt_calls_only ? NULL : mapped_channel(to);
    size_t offset = channel ? (size_t)((uint8_t *)to - channel->decoy) : 0;
    uint32_t site;

    if (!channel || offset + bytes > VT_PAGE_BYTES)
        return real_memset(to, value, bytes);
    vt_site_of(CALLER, &site);
    vt_access_fill(channel, site, (unsigned)offset, (uint8_t)value, bytes);
    return to;
}

static void *on___memset_chk(void *to, int value, size_t bytes, size_t room)
{
    if (vt_is_decoy(to))
        return on_memset(to, value, bytes);
    return real___memset_chk(to, value, bytes, room);
}

/* ---- the table ---- */

#define IN_LIBRARY(name) VT_PATCH(name, on_##name, NULL)

const struct vt_patch vt_xen_patches[] = {
    IN_LIBRARY(xenevtchn_open),
    IN_LIBRARY(xenevtchn_close),
    VT_PATCH(xenevtchn_fd, NULL, NULL),
    VT_PATCH(xenevtchn_notify, on_xenevtchn_notify, by_application_notify),
    VT_PATCH(xenevtchn_pending, on_xenevtchn_pending, by_application_pending),
    VT_PATCH(xenevtchn_unmask, on_xenevtchn_unmask, by_application_unmask),
    IN_LIBRARY(xenevtchn_bind_unbound_port),
    IN_LIBRARY(xenevtchn_bind_interdomain),
    IN_LIBRARY(xenevtchn_unbind),
    IN_LIBRARY(xengntshr_share_page_notify),
    IN_LIBRARY(xengntshr_share_pages),
    IN_LIBRARY(xengntshr_unshare),
    IN_LIBRARY(xengnttab_map_grant_ref_notify),
    IN_LIBRARY(xengnttab_map_domain_grant_refs),
    IN_LIBRARY(xengnttab_unmap),
    IN_LIBRARY(munmap),
    IN_LIBRARY(memcpy),
    IN_LIBRARY(__memcpy_chk),
    IN_LIBRARY(memset),
    IN_LIBRARY(__memset_chk),
};

const size_t vt_xen_patches_count = sizeof(vt_xen_patches) / sizeof(vt_xen_patches[0]);
