#include "inject.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "quiet.h"
#include "schedule.h"

#define POLL_NANOSECONDS 100000
#define INDICES_END 16
#define TELL 0 /* the kind of a rule that only wants to be told */

enum { NOT_YET = 0, HOLDING = 1, DONE = 2, IN_VAIN = 3 };
enum { FOR_TIME = 0, FOR_RELEASE = 1, FOR_CELL = 2 };
enum { UNKNOWN = 0, HAS_COME = 1, WILL_NOT = 2 };

bool vt_has_rules;

static struct fault {
    struct vt_rule rule;
    _Atomic uint32_t seen;
    _Atomic uint32_t state;
    _Atomic uint32_t released;
} faults[VT_RULES_MAX];
static unsigned fault_count;
static int bell = -1;
static _Atomic bool peer_is_over;
static _Atomic uint32_t taken[VT_ACTIONS_MAX];

void vt_inject_set(const struct vt_rule *rules, unsigned count, int bell_fd)
{
    fault_count = count < VT_RULES_MAX ? count : VT_RULES_MAX;
    bell = bell_fd;
    atomic_store(&peer_is_over, false);
    for (unsigned i = 0; i < VT_ACTIONS_MAX; i++)
        atomic_store(&taken[i], 0);
    for (unsigned i = 0; i < fault_count; i++) {
        faults[i].rule = rules[i];
        atomic_store(&faults[i].seen, 0);
        atomic_store(&faults[i].state, NOT_YET);
        atomic_store(&faults[i].released, UNKNOWN);
    }
    vt_schedule_set(bell_fd);
    vt_has_rules = fault_count > 0 || vt_has_schedule;
}

uint32_t vt_look_faults(struct vt_fault_look *looks, uint32_t max)
{
    uint32_t count = fault_count < max ? fault_count : max;

    for (uint32_t i = 0; i < count; i++)
        looks[i].state = atomic_load(&faults[i].state);
    return count;
}

void vt_release(uint32_t number, int is_there)
{
    if (number < fault_count)
        atomic_store(&faults[number].released, is_there ? HAS_COME : WILL_NOT);
}

void vt_peer_is_over(void)
{
    atomic_store(&peer_is_over, true);
}

/* ---- holding ---- */

/* Bytes of the cell at an offset: indices, orders, then live and notify bytes. */
static unsigned width_of(unsigned offset)
{
    return offset < INDICES_END ? 4 : 1;
}

/* False as well when there is no page any more. */
static bool cell_has_come(const struct vt_rule *rule, const struct vt_channel *channel)
{
    uint8_t head[VT_PAGE_HEAD_BYTES];
    uint32_t value = 0;

    if (!vt_channel_copy_head(channel, head))
        return false;
    memcpy(&value, head + rule->until_offset, width_of(rule->until_offset));
    /* An index may be beyond it when we look, and wraps. */
    if (rule->until_offset < INDICES_END)
        return (int32_t)(value - rule->value) >= 0;
    return value == rule->value;
}

static uint64_t nanoseconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct hold {
    const struct vt_moment *moment;
    struct fault *fault;
    bool came;
};

/*
 * Whether the hold is over. What waits for a cell looks at the page, and not for the event: that may
 * have been pending before, and another thread's read of it may take it.
 */
static bool is_over(struct hold *hold, uint64_t began)
{
    const struct vt_rule *rule = &hold->fault->rule;
    bool peer_was_over = atomic_load(&peer_is_over);
    uint32_t released = atomic_load(&hold->fault->released);
    bool time_is_up = nanoseconds_now() - began >= rule->nanoseconds_max;

    hold->came = released == HAS_COME || (rule->waits == FOR_TIME && time_is_up) ||
                 (rule->waits == FOR_CELL && cell_has_come(rule, hold->moment->channel));
    return hold->came || time_is_up || released == WILL_NOT ||
           (peer_was_over && rule->kind == VT_FAULT_DELAY && rule->waits != FOR_TIME);
}

static void ring_and_wait(void *argument)
{
    const struct timespec pause = { .tv_nsec = POLL_NANOSECONDS };
    struct hold *hold = argument;
    int errno_before = errno;
    uint32_t session = vt_log_session();
    uint64_t began = nanoseconds_now();

    vt_log_ring(hold->moment->thread, bell);
    while (!is_over(hold, began) && vt_log_session() == session)
        nanosleep(&pause, NULL);
    errno = errno_before;
}

static uint16_t hold(const struct vt_moment *moment, struct fault *fault)
{
    struct hold held = { moment, fault, false };

    atomic_store(&moment->thread->held, 1);
    atomic_store(&fault->state, HOLDING);
    vt_aside(ring_and_wait, &held);
    atomic_store(&fault->state, held.came ? DONE : IN_VAIN);
    atomic_store(&moment->thread->held, 0);
    return held.came ? VT_FLAG_HELD : VT_FLAG_HELD_IN_VAIN;
}

/* ---- the rules ---- */

static void log_fault(const struct vt_moment *moment, unsigned number, uint64_t in_page)
{
    struct vt_record record = {
        .kind = VT_FAULT,
        .old = number,
        .new_ = faults[number].rule.kind,
        .operand = (uint32_t)in_page,
        .site = moment->site,
        .channel = moment->channel->number,
        .offset = moment->offset,
        .width = moment->width,
    };

    record.t0 = record.t1 = vt_between_after();
    vt_log(moment->thread, &record);
}

void vt_inject_log(const struct vt_moment *moment, const struct vt_effect *effect,
                   uint64_t in_page)
{
    log_fault(moment, effect->number, in_page);
    atomic_store(&faults[effect->number].state, DONE);
}

void vt_inject_in_vain(const struct vt_effect *effect)
{
    atomic_store(&faults[effect->number].state, IN_VAIN);
}

static bool is_due(struct fault *fault, uint8_t action)
{
    const struct vt_rule *rule = &fault->rule;

    if (rule->action != action ||
        (rule->behind && atomic_load(&taken[rule->behind]) < rule->behind_nth))
        return false;
    return atomic_fetch_add(&fault->seen, 1) + 1 == rule->nth;
}

static bool changes_the_access(uint32_t kind)
{
    return kind == VT_FAULT_DROP || kind == VT_FAULT_REPEAT || kind == VT_FAULT_STALE ||
           kind == VT_FAULT_CORRUPT;
}

static void inject(const struct vt_moment *moment, unsigned number, struct vt_effect *effect)
{
    struct fault *fault = &faults[number];

    if (changes_the_access(fault->rule.kind)) {
        effect->fault = (uint8_t)fault->rule.kind;
        effect->number = (uint8_t)number;
        return;
    }
    log_fault(moment, number, 0);
    if (fault->rule.kind == VT_FAULT_KILL) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    effect->flags |= hold(moment, fault);
}

/* More loads of a step that has begun are changed as its first one was. */
static void inject_again(const struct vt_thread *thread, struct vt_effect *effect)
{
    if (thread->changed_looks) {
        effect->number = (uint8_t)(thread->changed_looks - 1);
        effect->fault = (uint8_t)faults[effect->number].rule.kind;
    }
}

struct vt_effect vt_inject_before(const struct vt_moment *moment)
{
    uint8_t cell = moment->offset == VT_NO_OFFSET ? VT_STEP_NO_CELL : (uint8_t)moment->offset;
    struct vt_thread *thread = moment->thread;
    struct vt_effect effect = {
        .step = vt_step_at(&thread->follow, moment->call, moment->kind, cell),
    };

    if (vt_has_schedule)
        vt_schedule_before(moment, &effect.step);
    if (!effect.step.action)
        return effect;
    if (effect.step.more) {
        inject_again(thread, &effect);
        return effect;
    }
    /* Every rule counts, also behind one that is due. */
    for (unsigned i = 0; i < fault_count; i++)
        if (faults[i].rule.kind != TELL && is_due(&faults[i], effect.step.action))
            inject(moment, i, &effect);
    thread->changed_looks = effect.fault ? (uint8_t)(effect.number + 1) : 0;
    return effect;
}

static void ring(void *argument)
{
    vt_log_ring(argument, bell);
}

static void tell(const struct vt_moment *moment, uint8_t action)
{
    bool is_to_be_told = false;

    for (unsigned i = 0; i < fault_count; i++)
        if (faults[i].rule.kind == TELL && is_due(&faults[i], action)) {
            atomic_store(&faults[i].state, DONE);
            is_to_be_told = true;
        }
    if (is_to_be_told)
        vt_aside(ring, moment->thread);
}

/* It was not that step: whatever counted it counts it no more, but for what it has done already. */
static void uncount(uint8_t action)
{
    for (unsigned i = 0; i < fault_count; i++) {
        const struct vt_rule *rule = &faults[i].rule;

        if (rule->kind != TELL && rule->action == action && atomic_load(&faults[i].state) == NOT_YET &&
            !(rule->behind && atomic_load(&taken[rule->behind]) < rule->behind_nth))
            atomic_fetch_sub(&faults[i].seen, 1);
    }
}

void vt_inject_after(const struct vt_moment *moment, const struct vt_effect *effect, bool is_done)
{
    uint8_t cell = moment->offset == VT_NO_OFFSET ? VT_STEP_NO_CELL : (uint8_t)moment->offset;
    uint8_t action = effect->step.action;

    if (vt_has_schedule)
        vt_schedule_after(moment, &effect->step, is_done);
    if (!is_done) {
        if (action)
            uncount(action);
        vt_step_taken(&moment->thread->follow, (struct vt_step){ 0 }, moment->kind, cell);
        return;
    }
    vt_step_taken(&moment->thread->follow, effect->step, moment->kind, cell);
    if (!action || effect->step.more)
        return;
    atomic_fetch_add(&taken[action], 1);
    tell(moment, action);
}

/* ---- values ---- */

uint64_t vt_inject_corrupted(const struct vt_effect *effect, unsigned width, uint64_t value)
{
    const struct vt_rule *rule = &faults[effect->number].rule;
    uint64_t mask = width == 8 ? ~0ull : (1ull << (8 * width)) - 1;

    return (rule->is_mask ? value ^ rule->value : rule->value) & mask;
}

void vt_inject_saw(struct vt_channel *channel, unsigned offset, uint64_t value)
{
    struct vt_cell_seen *seen = &channel->seen[offset];

    if (seen->count && seen->now == (uint32_t)value)
        return;
    seen->earlier = seen->now;
    seen->now = (uint32_t)value;
    if (seen->count < 2)
        seen->count++;
}

bool vt_inject_earlier(const struct vt_channel *channel, unsigned offset, uint64_t *value)
{
    const struct vt_cell_seen *seen = &channel->seen[offset];

    *value = seen->earlier;
    return seen->count == 2;
}
