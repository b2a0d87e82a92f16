#include "tracer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "access.h"
#include "calls.h"
#include "inject.h"
#include "segv.h"
#include "steps.h"
#include "translate.h"

static char problem[256];

const char *vt_problem(void)
{
    return problem;
}

static int fail(int error, const char *what, const char *detail)
{
    snprintf(problem, sizeof(problem), "%s %s", what, detail);
    return error;
}

const char *vt_library_name(void)
{
    return vt_find_library() ? vt_library.name : NULL;
}

/* The child's doings are not the parent's, so nothing of them may get into the parent's file. */
static void in_child(void)
{
    vt_log_abandon();
    vt_channels_after_fork();
}

static int patch_all(const char **name)
{
    int error = vt_patch_objects(vt_xen_patches, vt_xen_patches_count, name);

    return error ? error : vt_patch_objects(vt_api_patches, vt_api_patches_count, name);
}

void vt_patch_again(void)
{
    const char *name;

    /* It succeeded at the start, and nothing of it can have gone. */
    patch_all(&name);
}

static int find_and_translate(const struct vt_manner *manner, struct vt_translated *done)
{
    struct vt_translation made = { 0 };
    int error;

    if (!vt_find_library())
        return fail(-ENOENT, "no libxenvchan is loaded in this process", "");
    error = vt_channels_init();
    if (error)
        return fail(error, "no room for decoy pages:", strerror(-error));
    vt_calls_only = manner->calls_only;
    error = manner->calls_only ? 0 : vt_translate_library(&made);
    if (error)
        fail(error, "libxenvchan cannot be translated:", strerror(-error));
    /* What is not used still has what the emulation does not know. */
    if (!manner->translate || manner->calls_only)
        vt_translate_nothing();
    *done = (struct vt_translated){ !error && manner->translate && !manner->calls_only, made.functions, made.refused,
                                    made.sites };
    vt_order_kept = done->is_there && manner->keep_order;
    return 0;
}

int vt_prepare(const struct vt_manner *manner, struct vt_translated *done)
{
    problem[0] = 0;
    if (vt_log_session())
        return fail(-EBUSY, "another trace is being recorded in this process", "");
    return find_and_translate(manner, done);
}

int vt_catch(void)
{
    static bool watching_forks;
    const char *name;
    int error;

    if (!vt_find_library())
        return fail(-ENOENT, "no libxenvchan is loaded in this process", "");
    error = vt_channels_init();
    if (error)
        return fail(error, "no room for decoy pages:", strerror(-error));
    if (!watching_forks)
        watching_forks = !pthread_atfork(NULL, NULL, in_child);
    if (!watching_forks)
        return fail(-ENOMEM, "pthread_atfork", "failed");
    error = patch_all(&name);
    if (error == -ENOENT)
        return fail(error, "libxenvchan and what it needs do not have", name);
    if (error)
        return fail(error, "this system keeps tables of addresses from being changed, that of", name);
    error = vt_segv_take();
    if (error)
        return fail(error, "SIGSEGV cannot be caught:", strerror(-error));
    return 0;
}

void vt_know_steps(const struct vt_step_row *rows, uint32_t count)
{
    vt_steps_set(rows, count);
}

int vt_start(int fd, const uint8_t *header, uint32_t blocks_max, int doorbell_fd, int held_fd,
             const struct vt_rule *rules, uint32_t rule_count)
{
    int error;

    problem[0] = 0;
    if (vt_log_session())
        return fail(-EBUSY, "another trace is being recorded in this process", "");
    error = vt_catch();
    if (error)
        return error;
    vt_access_forget_code();
    vt_channels_renumber();
    vt_inject_set(rules, rule_count, held_fd);
    error = vt_log_start(fd, header, blocks_max, doorbell_fd);
    return error ? fail(error, "the trace file cannot be mapped:", strerror(-error)) : 0;
}

uint32_t vt_stop(void)
{
    return vt_log_stop();
}

void vt_payload(uint64_t position, uint64_t bytes, int mismatch)
{
    struct vt_thread *thread = vt_thread();
    struct vt_record record = {
        .kind = VT_PAYLOAD,
        .old = position,
        .new_ = bytes,
        .operand = mismatch != 0,
        .offset = VT_NO_OFFSET,
    };

    record.t0 = record.t1 = vt_stamp_after();
    record.channel = thread ? thread->channel : 0;
    vt_log(thread, &record);
}

uint32_t vt_look_channels(struct vt_channel_look *looks, uint32_t max)
{
    uint32_t count = 0;

    for (unsigned place = 0; place < VT_CHANNELS_MAX && count < max; place++) {
        const struct vt_channel *channel = vt_channel_at(place);

        if (!channel || channel->session != vt_log_session())
            continue;
        looks[count].number = channel->number;
        looks[count].is_server = channel->is_server;
        looks[count].event_fd = channel->event_fd;
        looks[count].has_page = vt_channel_copy_head(channel, looks[count].page);
        count++;
    }
    return count;
}

uint32_t vt_look_calls(struct vt_call_look *looks, uint32_t max)
{
    uint32_t count = 0;

    for (uint32_t number = 0; number < vt_log_threads() && count < max; number++) {
        const struct vt_thread *thread = vt_log_thread(number);

        /* What a fault holds before its call counts as well. */
        if (!thread->call && !thread->held)
            continue;
        looks[count].tid = thread->tid;
        looks[count].call = thread->call;
        looks[count].channel = thread->channel;
        looks[count].held = thread->held;
        count++;
    }
    return count;
}

uint64_t vt_look_records(void)
{
    return vt_log_records();
}
