/* The tracer as Python sees it. One trace a process. */
#include "api.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <xenevtchn.h>

#include "core.h"

/* A child shares the parent's file: what it does is not the parent's doing, so it is not logged.
   Its channels still point into decoys: handler and interposition stay. */
static void in_child(void) { log_forget(); }

int tracer_open(const char *path, int role, int domid, int peer_domid, uint64_t seed,
                const uint8_t *run_id, uint64_t bytes_max, const char *xen_version,
                const char *library, const char *kernel, const char *program)
{
    const struct trace_config config = {
        .path = path, .role = (uint8_t)role, .domid = (uint16_t)domid,
        .peer_domid = (uint16_t)peer_domid, .seed = seed, .bytes_max = bytes_max,
        .run_id = run_id, .xen_version = xen_version, .library = library, .kernel = kernel,
        .program = program,
    };

    if (log_is_open())
        return -EBUSY;
    return log_open(&config);
}

int tracer_plan_drop(int bit, uint32_t nth)
{
    const struct planned_fault fault = {.bit = (uint8_t)bit, .nth = nth};

    return interpose_plan_fault(&fault);
}

int tracer_attach(void)
{
    static int watches_forks;
    int error = fault_install();

    if (error)
        return error;
    if (!watches_forks)
        watches_forks = pthread_atfork(NULL, NULL, in_child) == 0;
    error = interpose_attach();
    if (error)
        tracer_detach();
    return error;
}

void tracer_detach(void)
{
    interpose_detach();
    /* A channel that is still open points into its decoy: its accesses go on, unlogged. */
    if (log_is_open())
        log_event(VT_DETACH, NULL, 0, 0, 0);
    log_finish();
    bool open_channels = false;
    for (unsigned i = 0; i < CHANNELS_MAX; i++)
        open_channels = open_channels || channel_at(i);
    if (!open_channels)
        fault_remove();
}

int tracer_doorbell(void) { return log_doorbell(); }

void tracer_payload(uint64_t position, uint64_t count, int ok)
{
    struct thread *thread = this_thread();
    struct vt_record *record = log_begin(thread);

    if (!record)
        return;
    record->kind = VT_PAYLOAD;
    record->old = position;
    record->new_ = count;
    record->operand = ok ? 0 : 1;
    record->t0 = record->t1 = __builtin_ia32_rdtsc();
    log_commit(thread, record);
}

void tracer_look(struct tracer_look *look)
{
    memset(look, 0, sizeof(*look));
    look->event_fd = -1;
    channel_lock();
    for (unsigned i = 0; i < CHANNELS_MAX; i++) {
        const struct channel *channel = channel_at(i);

        if (!channel || look->channels++)
            continue;
        if (channel->page) {
            memcpy(look->page, channel->page, PAGE_HEAD_BYTES);
            look->has_page = 1;
        }
        if (channel->event)
            look->event_fd = xenevtchn_fd(channel->event);
    }
    channel_unlock();
    look->records = log_records();
    for (unsigned i = 0; i < thread_count() && !look->call; i++)
        look->call = thread_at(i)->call;
}
