/*
 * What no tracer that catches faults can do without: an access that faults, a signal handler that
 * does nothing but go on behind it. Prints microseconds of processor time for each, the median of
 * some turns.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#define TURNS 9
#define ACCESSES 50000
#define LOAD_BYTES 2

static void step_over(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += LOAD_BYTES;
}

static double processor_microseconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static int by_value(const void *first, const void *second)
{
    double a = *(const double *)first, b = *(const double *)second;

    return (a > b) - (a < b);
}

int main(void)
{
    struct sigaction action = { .sa_sigaction = step_over, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double turns[TURNS];

    sigfillset(&action.sa_mask);
    if (page == MAP_FAILED || sigaction(SIGSEGV, &action, NULL))
        return 1;
    for (int turn = 0; turn < TURNS; turn++) {
        double began = processor_microseconds();

        for (int i = 0; i < ACCESSES; i++)
            /* mov (%rax), %eax: LOAD_BYTES long */
            __asm__ __volatile__(".byte 0x8b, 0x00" : : "a"(page) : "memory");
        turns[turn] = (processor_microseconds() - began) / ACCESSES;
    }
    qsort(turns, TURNS, sizeof(turns[0]), by_value);
    printf("%f\n", turns[TURNS / 2]);
    return 0;
}
