#include "segv.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "access.h"
#include "channels.h"
#include "decode.h"
#include "translate.h"

/* Who had the signal before us, oldest first. Each later one may come to call the one before. */
#define PREVIOUS_MAX 8
static struct sigaction previous[PREVIOUS_MAX];
static int previous_count;

int (*vt_sigaction)(int, const struct sigaction *, struct sigaction *) = sigaction;

static const int register_of[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        errno = 0;
}

static void say_hex(uint64_t value, unsigned digits)
{
    char text[17];

    for (unsigned i = 0; i < digits; i++)
        text[i] = "0123456789abcdef"[value >> (4 * (digits - 1 - i)) & 15];
    text[digits] = 0;
    say(text);
}

/* Going on would mean an access that is missing in the trace: there is no way but to end. */
static void refuse(const uint8_t *code)
{
    uint32_t site;

    say("vchan-testbed tracer: cannot emulate the instruction");
    for (unsigned i = 0; i < VT_INSTRUCTION_BYTES_MAX; i++) {
        say(" ");
        say_hex(code[i], 2);
    }
    if (vt_site_of(code, &site)) {
        say(" at libxenvchan+0x");
        say_hex(site, 8);
    } else {
        say(" of the application, which accesses the shared page itself,");
    }
    say(" (this build of the library cannot be traced; use the distribution's own build)\n");
    abort();
}

static void call_previous(const struct sigaction *action, int number, siginfo_t *info,
                          void *context)
{
    if (action->sa_flags & SA_SIGINFO) {
        action->sa_sigaction(number, info, context);
    } else if (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN) {
        static const struct sigaction by_default = { .sa_handler = SIG_DFL };

        /* The instruction faults again, and then the kernel does what it does by default. */
        vt_sigaction(number, &by_default, NULL);
        if (info->si_code <= 0)
            raise(number);
    } else {
        action->sa_handler(number);
    }
}

/*
 * A handler that has done its work (faulthandler has written its traceback) puts back what it
 * found, which is us, and raises the signal again. It must not be called twice: go on to the one
 * before it.
 */
static void pass_on(int number, siginfo_t *info, void *context)
{
    struct sigaction latest = previous[previous_count ? previous_count - 1 : 0];

    if (info->si_code <= 0 && previous_count > 1)
        latest = previous[--previous_count - 1];
    call_previous(&latest, number, info, context);
}

static void take_registers(struct vt_registers *to, const greg_t *from)
{
    for (unsigned i = 0; i < 16; i++)
        to->general[i] = (uint64_t)from[register_of[i]];
    to->flags = (uint64_t)from[REG_EFL];
}

static void give_registers(greg_t *to, const struct vt_registers *from)
{
    for (unsigned i = 0; i < 16; i++)
        to[register_of[i]] = (greg_t)from->general[i];
    to[REG_EFL] = (greg_t)from->flags;
}

static void on_segv(int number, siginfo_t *info, void *raw)
{
    greg_t *saved = ((ucontext_t *)raw)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)saved[REG_RIP];
    struct vt_channel *channel = info->si_code > 0 ? vt_channel_of_decoy(info->si_addr) : NULL;
    struct vt_registers registers;
    enum vt_outcome outcome;
    int errno_before = errno;
    unsigned length = 0;

    if (!channel || !channel->page || vt_is_decoy(code)) {
        pass_on(number, info, raw);
        return;
    }
    take_registers(&registers, saved);
    outcome = vt_access_at(channel, code, info->si_addr, &registers, &length);
    if (outcome == VT_REFUSED) {
        const void *odd = vt_translated_odd(code);

        if (!odd)
            refuse(code);
        saved[REG_RIP] = (greg_t)odd;
        errno = errno_before;
        return;
    }
    give_registers(saved, &registers);
    if (outcome == VT_DONE)
        saved[REG_RIP] += length;
    errno = errno_before;
}

int vt_segv_take(void)
{
    struct sigaction now, ours = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK };

    if (vt_sigaction(SIGSEGV, NULL, &now))
        return -errno;
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_segv)
        return 0;
    /* Nothing may come between an access and its record. */
    sigfillset(&ours.sa_mask);
    if (previous_count < PREVIOUS_MAX)
        previous_count++;
    previous[previous_count - 1] = now;
    return vt_sigaction(SIGSEGV, &ours, NULL) ? -errno : 0;
}

bool vt_segv_set(const struct sigaction *action, struct sigaction *before)
{
    struct sigaction now;

    if (!previous_count || vt_sigaction(SIGSEGV, NULL, &now) || !(now.sa_flags & SA_SIGINFO) ||
        now.sa_sigaction != on_segv)
        return false;
    if (before)
        *before = previous[previous_count - 1];
    if (action)
        previous[previous_count - 1] = *action;
    return true;
}

static bool was_blocked(int how)
{
    sigset_t segv, before;

    sigemptyset(&segv);
    sigaddset(&segv, SIGSEGV);
    pthread_sigmask(how, &segv, &before);
    return sigismember(&before, SIGSEGV);
}

bool vt_segv_unblock(void)
{
    return was_blocked(SIG_UNBLOCK);
}

void vt_segv_block(void)
{
    was_blocked(SIG_BLOCK);
}
