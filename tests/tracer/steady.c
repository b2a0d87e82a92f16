/*
 * A server that nobody meets, and that watches itself: steady ROUNDS. In each round it asks and writes a
 * little, CALLS times, and then says
 *
 *   SYSTEM_CALLS ALLOCATIONS FAULTS
 *
 * that its thread made on the way: calls of the kernel (the first of the round, by system call
 * dispatch), allocations, page faults. Behind a round that was not free of them it waits for longer.
 */
#define _GNU_SOURCE
#include <libxenvchan.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/ucontext.h>
#include <time.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define CLIENT_DOMID 2
#define RING_BYTES (1 << 20)
#define CALLS 500
#define SYSCALL_BYTES 2

#define PAUSE_NANOSECONDS 1000000

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);

static volatile char dispatch; /* 0: let through, 1: to the handler */
static volatile int system_calls;
static _Thread_local volatile int allocations;
static volatile int counting;

static void allocated(void)
{
    if (counting)
        allocations++;
}

void *malloc(size_t size)
{
    allocated();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocated();
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    allocated();
    return __libc_realloc(memory, size);
}

/* The call is made after all: the instruction is taken once more, and this time let through. */
static void count(int number, siginfo_t *info, void *context)
{
    ucontext_t *there = context;

    (void)number;
    dispatch = 0;
    system_calls++;
    there->uc_mcontext.gregs[REG_RIP] -= SYSCALL_BYTES;
    there->uc_mcontext.gregs[REG_RAX] = info->si_syscall;
}

static long faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

static void one_round(struct libxenvchan *channel)
{
    char word[8] = "steady";

    for (int calls = 0; calls < CALLS; calls += 4) {
        libxenvchan_data_ready(channel);
        libxenvchan_buffer_space(channel);
        libxenvchan_is_open(channel);
        libxenvchan_write(channel, word, sizeof(word));
    }
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_sigaction = count, .sa_flags = SA_SIGINFO };
    struct libxenvchan *channel;
    int rounds = argc == 2 ? atoi(argv[1]) : 0;

    channel = libxenvchan_server_init(NULL, CLIENT_DOMID, "data/steady", RING_BYTES, RING_BYTES);
    if (!channel || sigaction(SIGSYS, &action, NULL) ||
        prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &dispatch))
        return 1;
    for (int i = 0; i < rounds; i++) {
        long faults_of_it = faults();
        struct timespec pause;

        system_calls = allocations = 0;
        counting = dispatch = 1;
        one_round(channel);
        counting = dispatch = 0;
        faults_of_it = faults() - faults_of_it;
        printf("%d %d %ld\n", system_calls, allocations, faults_of_it);
        /* The tracer's other thread may come to its turn. */
        pause = (struct timespec){ 0, PAUSE_NANOSECONDS * (system_calls + faults_of_it ? 50 : 1) };
        nanosleep(&pause, NULL);
    }
    libxenvchan_close(channel);
    return 0;
}
