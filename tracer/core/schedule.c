#include "schedule.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>

#include "quiet.h"
#include "record.h"

#define POLL_NANOSECONDS 50000

bool vt_has_schedule;

/* This end's turns. One thread alone makes its calls: what is not atomic here is that thread's. */
static struct vt_turn turns[VT_TURNS_MAX];
static uint32_t turn_count;
static bool from_init;
static int bell = -1;

static _Atomic uint32_t next;      /* its place among this end's turns */
static _Atomic uint32_t over;      /* number of the newest step that is over, 0: none */
static _Atomic uint32_t granted;   /* number of the last step that may be taken */
static _Atomic bool is_free;       /* nothing is held any more */
static _Atomic uint32_t astray;    /* action that it came to instead of the next one, 0: none */
static uint32_t open;              /* number of a step whose loads may go on, 0: none */
/* An action that the library has looked for ahead of the one that is due before it, and whether the
   peer has no turn in between. */
static uint8_t early;
static bool early_is_covered;

void vt_keep_schedule(const struct vt_turn *given, uint32_t count, int gates_init)
{
    turn_count = count < VT_TURNS_MAX ? count : VT_TURNS_MAX;
    from_init = gates_init;
    for (uint32_t i = 0; i < turn_count; i++)
        turns[i] = given[i];
    vt_has_schedule = gates_init >= 0;
}

void vt_schedule_set(int bell_fd)
{
    bell = bell_fd;
    atomic_store(&next, 0);
    atomic_store(&over, 0);
    atomic_store(&granted, 0);
    atomic_store(&is_free, false);
    atomic_store(&astray, 0);
    open = early = 0;
}

void vt_grant(uint32_t number)
{
    atomic_store(&granted, number);
}

void vt_schedule_is_over(void)
{
    atomic_store(&is_free, true);
}

void vt_look_schedule(struct vt_schedule_look *look)
{
    look->over = atomic_load(&over);
    look->astray = atomic_load(&astray);
}

/* ---- holding ---- */

struct gate {
    const struct vt_moment *moment;
    uint32_t number; /* 0: of no turn, held until the schedule is over */
    bool rings;
};

static void wait_at(void *argument)
{
    const struct timespec pause = { .tv_nsec = POLL_NANOSECONDS };
    const struct gate *gate = argument;
    int errno_before = errno;
    uint32_t session = vt_log_session();

    if (gate->rings)
        vt_log_ring(gate->moment->thread, bell);
    while (!atomic_load(&is_free) && vt_log_session() == session &&
           !(gate->number && atomic_load(&granted) >= gate->number))
        nanosleep(&pause, NULL);
    errno = errno_before;
}

static void hold(const struct vt_moment *moment, uint32_t number, bool rings)
{
    struct gate gate = { moment, number, rings };

    if (!rings && number && atomic_load(&granted) >= number)
        return;
    atomic_store(&moment->thread->held, 1);
    vt_aside(wait_at, &gate);
    atomic_store(&moment->thread->held, 0);
}

static void ring(void *argument)
{
    vt_log_ring(argument, bell);
}

/* ---- turns ---- */

static const struct vt_turn *next_turn(void)
{
    uint32_t place = atomic_load(&next);

    return place < turn_count ? &turns[place] : NULL;
}

/* Also within a stretch, of which all turns are granted: else nobody would know where it ended. */
static void is_over(const struct vt_moment *moment, uint32_t number)
{
    atomic_store(&over, number);
    vt_aside(ring, moment->thread);
}

static void begin(const struct vt_moment *moment, const struct vt_turn *turn,
                  const struct vt_step *step)
{
    hold(moment, turn->number, false);
    atomic_fetch_add(&next, 1);
    if (step->action == early)
        early = 0;
    if (step->more || (step->row && step->row->decides))
        open = turn->number;
}

/* The thread goes on: no load belongs to the step any more that it had begun. */
static void close_open(const struct vt_moment *moment)
{
    uint32_t number = open;

    open = 0;
    if (number)
        is_over(moment, number);
}

/* Of the step that it had looked for early there was no second look. */
static void take_early(const struct vt_moment *moment)
{
    const struct vt_turn *turn = next_turn();

    if (early && early_is_covered && turn && turn->action == early) {
        atomic_fetch_add(&next, 1);
        is_over(moment, turn->number);
    }
    early = 0;
}

/*
 * Whether it is a look that a compiler has put ahead of the step that is due before it, and that is the
 * next turn. The table gives the order of the two back; here the look that decides is the one behind.
 */
static bool is_early(const struct vt_moment *moment, const struct vt_step *step,
                     const struct vt_turn *turn)
{
    if (!step->row || !turn)
        return false;
    for (unsigned i = 0; i < 2; i++)
        if (step->row->first_last[i] && step->row->first_last[i] == moment->thread->follow.last &&
            step->row->first_action[i] == turn->action)
            return true;
    return false;
}

static void look_early(const struct vt_moment *moment, const struct vt_step *step,
                       const struct vt_turn *turn)
{
    bool is_followed = turn + 1 < turns + turn_count && turn[1].action == step->action;

    hold(moment, turn->number, false);
    early = step->action;
    early_is_covered = is_followed && turn[1].number <= atomic_load(&granted);
}

static void go_astray(const struct vt_moment *moment, uint8_t action)
{
    atomic_store(&astray, action);
    hold(moment, 0, true);
}

static void come_to(const struct vt_moment *moment, const struct vt_step *step)
{
    const struct vt_turn *turn = next_turn();

    if (!turn)
        hold(moment, 0, false);
    else if (step->action == turn->action)
        begin(moment, turn, step);
    else if (is_early(moment, step, turn))
        look_early(moment, step, turn);
    else
        go_astray(moment, step->action);
}

/* What is made before anybody can use the channel is held only where the schedule names some of it. */
static bool is_gated(const struct vt_moment *moment)
{
    bool is_init = moment->call == VT_CALL_SERVER_INIT || moment->call == VT_CALL_CLIENT_INIT;

    return !atomic_load(&is_free) && (from_init || !is_init);
}

void vt_schedule_before(const struct vt_moment *moment, const struct vt_step *step)
{
    if (!is_gated(moment))
        return;
    if (step->more) {
        if (step->action == early)
            come_to(moment, step);
        return;
    }
    if (step->action || vt_step_goes_on(moment->kind))
        close_open(moment);
    if (!step->action)
        return;
    /* A step that was owed is not the one behind the early look, but what that was ahead of. */
    if (step->row)
        take_early(moment);
    come_to(moment, step);
}

void vt_schedule_after(const struct vt_moment *moment, const struct vt_step *step, bool is_done)
{
    uint32_t place = atomic_load(&next);

    if (!is_gated(moment) || !step->action || step->action == early || open || !place)
        return;
    if (turns[place - 1].action != step->action || atomic_load(&over) == turns[place - 1].number)
        return;
    if (is_done)
        is_over(moment, turns[place - 1].number);
    else
        atomic_fetch_sub(&next, 1);
}
