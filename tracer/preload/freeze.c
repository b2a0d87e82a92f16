#include "freeze.h"

#include <errno.h>

#include "log.h"
#include "segv.h"

static struct {
    int number; /* 0: none is taken */
    struct sigaction of_program;
} taken;

static void pass_on(int number, siginfo_t *info, void *context)
{
    struct sigaction action = taken.of_program;

    if (!(action.sa_flags & SA_SIGINFO) &&
        (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN))
        return;
    if (action.sa_flags & SA_RESETHAND)
        taken.of_program = (struct sigaction){ .sa_handler = SIG_DFL };
    if (action.sa_flags & SA_SIGINFO)
        action.sa_sigaction(number, info, context);
    else
        action.sa_handler(number);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    int errno_before = errno;

    vt_log_freeze(VT_FROZEN_BY_SIGNAL);
    errno = errno_before;
    pass_on(number, info, context);
}

/* With the program's own mask and flags, so that its handler runs as it is used to. */
static int install(void)
{
    struct sigaction ours = taken.of_program;
    bool has_handler = ours.sa_flags & SA_SIGINFO ||
                       (ours.sa_handler != SIG_DFL && ours.sa_handler != SIG_IGN);

    if (!has_handler)
        ours = (struct sigaction){ .sa_flags = SA_RESTART };
    ours.sa_flags = (ours.sa_flags | SA_SIGINFO) & ~SA_RESETHAND;
    ours.sa_sigaction = on_signal;
    return vt_sigaction(taken.number, &ours, NULL) ? -errno : 0;
}

int freeze_take(int number)
{
    int error;

    if (taken.number == number)
        return 0;
    if (vt_sigaction(number, NULL, &taken.of_program))
        return -errno;
    taken.number = number;
    error = install();
    if (error)
        taken.number = 0;
    return error;
}

bool freeze_set(int number, const struct sigaction *action, struct sigaction *before)
{
    struct sigaction last = taken.of_program;

    if (!taken.number || number != taken.number)
        return false;
    if (action) {
        taken.of_program = *action;
        install();
    }
    if (before)
        *before = last;
    return true;
}
