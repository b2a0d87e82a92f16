#include "inject.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "quiet.h"

#define POLL_NANOSECONDS 100000
#define ACCESS_LOAD 1
#define ACCESS_CHANGE 2
#define INDICES_END 16

enum { NOT_YET = 0, HOLDING = 1, DONE = 2, IN_VAIN = 3 };

static struct fault {
    struct vt_rule rule;
    _Atomic uint32_t seen;
    _Atomic uint32_t state;
} faults[VT_RULES_MAX];
static unsigned fault_count;
static int bell_fd = -1;

void vt_inject_set(const struct vt_rule *rules, unsigned count, int held_fd)
{
    fault_count = count < VT_RULES_MAX ? count : VT_RULES_MAX;
    bell_fd = held_fd;
    for (unsigned i = 0; i < fault_count; i++) {
        faults[i].rule = rules[i];
        atomic_store(&faults[i].seen, 0);
        atomic_store(&faults[i].state, NOT_YET);
    }
}

uint32_t vt_look_faults(struct vt_fault_look *looks, uint32_t max)
{
    uint32_t count = fault_count < max ? fault_count : max;

    for (uint32_t i = 0; i < count; i++)
        looks[i].state = atomic_load(&faults[i].state);
    return count;
}

static bool is_the_nth(struct fault *fault)
{
    return atomic_fetch_add(&fault->seen, 1) + 1 == fault->rule.nth;
}

int vt_inject_on_notify(uint8_t cleared_bits)
{
    int drops = -1;

    /* Every rule counts, also behind one that drops. */
    for (unsigned i = 0; i < fault_count; i++) {
        const struct vt_rule *rule = &faults[i].rule;

        if (rule->kind != VT_FAULT_DROP_NOTIFY || (rule->bits && !(rule->bits & cleared_bits)))
            continue;
        if (is_the_nth(&faults[i]) && drops < 0)
            drops = (int)i;
    }
    if (drops >= 0)
        atomic_store(&faults[drops].state, DONE);
    return drops;
}

uint16_t vt_inject_on_call(uint8_t call)
{
    uint16_t holds = 0;

    for (unsigned i = 0; i < fault_count; i++)
        if (faults[i].rule.kind == VT_FAULT_HOLD && faults[i].rule.call == call &&
            is_the_nth(&faults[i]))
            holds |= (uint16_t)(1u << i);
    return holds;
}

/* ---- hold ---- */

/* Bytes of the cell at an offset: indices, orders, then live and notify bytes. */
static unsigned width_of(unsigned offset)
{
    return offset < INDICES_END ? 4 : 1;
}

static bool is_meant(const struct vt_rule *rule, unsigned offset, unsigned width, bool is_load)
{
    if (rule->access && rule->access != (is_load ? ACCESS_LOAD : ACCESS_CHANGE))
        return false;
    return offset < rule->offset + width_of(rule->offset) && rule->offset < offset + width;
}

/* False as well when there is no page any more. */
static bool has_come(const struct vt_rule *rule, const struct vt_channel *channel)
{
    uint8_t head[VT_PAGE_HEAD_BYTES];
    uint32_t value = 0;

    if (!vt_channel_copy_head(channel, head))
        return false;
    memcpy(&value, head + rule->until_offset, width_of(rule->until_offset));
    /* An index may be beyond it when we look, and wraps. */
    if (rule->until_offset < INDICES_END)
        return (int32_t)(value - rule->until_value) >= 0;
    return value == rule->until_value;
}

static uint64_t nanoseconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * Looks at the page, and not for the event: that may have been pending before, and another thread's
 * read of it may take it.
 */
static bool wait_until_it_has_come(const struct vt_rule *rule, const struct vt_channel *channel)
{
    const struct timespec pause = { .tv_nsec = POLL_NANOSECONDS };
    uint64_t began = nanoseconds_now();
    uint32_t session = channel->session;

    while (!has_come(rule, channel)) {
        if (nanoseconds_now() - began >= rule->nanoseconds_max || vt_log_session() != session)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

static void log_hold(struct vt_thread *thread, const struct vt_channel *channel, uint32_t site,
                     unsigned number)
{
    struct vt_record record = {
        .kind = VT_FAULT,
        .old = number,
        .new_ = VT_FAULT_HOLD,
        .site = site,
        .channel = channel->number,
        .offset = VT_NO_OFFSET,
    };

    record.t0 = record.t1 = vt_between_after();
    vt_log(thread, &record);
}

struct hold {
    struct vt_thread *thread;
    const struct vt_channel *channel;
    struct fault *fault;
    bool came;
};

static void ring_and_wait(void *argument)
{
    struct hold *hold = argument;
    int errno_before = errno;

    vt_log_ring(hold->thread, bell_fd);
    hold->came = wait_until_it_has_come(&hold->fault->rule, hold->channel);
    errno = errno_before;
}

static uint16_t hold(struct vt_thread *thread, const struct vt_channel *channel, uint32_t site,
                     unsigned number)
{
    struct hold held = { thread, channel, &faults[number], false };

    log_hold(thread, channel, site, number);
    atomic_store(&thread->held, 1);
    atomic_store(&held.fault->state, HOLDING);
    vt_aside(ring_and_wait, &held);
    atomic_store(&held.fault->state, held.came ? DONE : IN_VAIN);
    atomic_store(&thread->held, 0);
    return held.came ? VT_FLAG_HELD : VT_FLAG_HELD_IN_VAIN;
}

uint16_t vt_inject_on_access(struct vt_thread *thread, const struct vt_channel *channel,
                             uint32_t site, unsigned offset, unsigned width, bool is_load)
{
    for (unsigned i = 0; i < fault_count; i++)
        if (thread->holds & 1u << i && is_meant(&faults[i].rule, offset, width, is_load)) {
            thread->holds &= (uint16_t)~(1u << i);
            return hold(thread, channel, site, i);
        }
    return 0;
}
