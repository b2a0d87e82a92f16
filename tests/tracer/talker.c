/*
 * A program that knows nothing of any tracer: talker MODE ROLE.
 *
 *   plain      one channel, bytes there and an answer back
 *   threads    two channels at once, a thread each
 *   fork       a child opens the channel and talks
 *   inherited  a child goes on with its parent's channel; the parent says its status and talks
 *   exit       ends by _exit, with the channel closed
 *   handler    has a SIGSEGV handler of its own, and a fault of its own
 *   wrapper    the client writes by itself: it stores the index and raises the event
 *   rounds     many requests and answers
 *   asked      the same, and the client asks for SIGUSR2 in the middle, with a handler of its own
 *   stuck      as many, then the server stops to read: it says "stuck", and sleeps until it is killed
 *   killed     as many, then the client kills itself
 *
 * Built without -DLINKED it opens libxenvchan by dlopen. A server says "up" when it can be met.
 */
#include <dlfcn.h>
#include <libxenvchan.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVER_DOMID 1
#define CLIENT_DOMID 2
#define MOVED 30000
#define CHUNK 700
#define ROUNDS 4000

static struct libxenvchan *(*open_server)(struct xentoollog_logger *, int, const char *, size_t,
                                          size_t);
static struct libxenvchan *(*open_client)(struct xentoollog_logger *, int, const char *);
static int (*take)(struct libxenvchan *, void *, size_t);
static int (*put)(struct libxenvchan *, const void *, size_t);
static void (*end)(struct libxenvchan *);
static const char *mode, *role;

static int is(const char *word, const char *other)
{
    return !strcmp(word, other);
}

static void find_library(void)
{
#ifdef LINKED
    open_server = libxenvchan_server_init;
    open_client = libxenvchan_client_init;
    take = libxenvchan_read;
    put = libxenvchan_write;
    end = libxenvchan_close;
#else
    void *library = dlopen("libxenvchan.so.4.17", RTLD_NOW);

    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(9);
    }
    *(void **)&open_server = dlsym(library, "libxenvchan_server_init");
    *(void **)&open_client = dlsym(library, "libxenvchan_client_init");
    *(void **)&take = dlsym(library, "libxenvchan_read");
    *(void **)&put = dlsym(library, "libxenvchan_write");
    *(void **)&end = dlsym(library, "libxenvchan_close");
#endif
}

static void need(int holds, int status)
{
    if (!holds)
        _exit(status);
}

static struct libxenvchan *meet(const char *name)
{
    char path[64];
    struct libxenvchan *channel;

    if (is(role, "server")) {
        snprintf(path, sizeof(path), "data/%s", name);
        channel = open_server(NULL, CLIENT_DOMID, path, 4096, 4096);
    } else {
        snprintf(path, sizeof(path), "/local/domain/%d/data/%s", SERVER_DOMID, name);
        channel = open_client(NULL, SERVER_DOMID, path);
    }
    need(channel != NULL, 10);
    channel->blocking = 1;
    return channel;
}

static void take_all(struct libxenvchan *channel, int count)
{
    char data[CHUNK];

    while (count > 0) {
        int got = take(channel, data, count < CHUNK ? (size_t)count : CHUNK);

        need(got > 0, 11);
        count -= got;
    }
}

static void put_all(struct libxenvchan *channel, int count)
{
    char data[CHUNK];

    memset(data, 'v', sizeof(data));
    while (count > 0) {
        int done = put(channel, data, count < CHUNK ? (size_t)count : CHUNK);

        need(done > 0, 12);
        count -= done;
    }
}

/* As wrappers of the library do it. */
static void put_by_myself(struct libxenvchan *channel, uint32_t count)
{
    volatile uint32_t *prod = &channel->write.shr->prod;

    memset(channel->write.buffer, 'w', count);
    __sync_synchronize();
    *prod = *prod + count;
    __sync_synchronize();
    xenevtchn_notify(channel->event, channel->event_port);
}

static volatile sig_atomic_t asked;

static void on_asked(int number)
{
    (void)number;
    asked++;
}

static void ask(int round)
{
    struct sigaction before;

    if (round == 0)
        signal(SIGUSR2, on_asked);
    if (round != ROUNDS / 2)
        return;
    raise(SIGUSR2);
    need(asked == 1, 18);
    need(!sigaction(SIGUSR2, NULL, &before) && before.sa_handler == on_asked, 19);
}

static void go_round(struct libxenvchan *channel)
{
    for (int round = 0; round < ROUNDS; round++) {
        if (is(role, "server")) {
            take_all(channel, 64);
            put_all(channel, 32);
        } else {
            put_all(channel, 64);
            take_all(channel, 32);
            if (is(mode, "asked"))
                ask(round);
        }
    }
    if (is(mode, "killed") && is(role, "client"))
        raise(SIGKILL);
    if (is(mode, "stuck") && is(role, "server")) {
        printf("stuck\n");
        fflush(stdout);
        pause();
    }
    if (is(mode, "stuck"))
        put_all(channel, MOVED);
    if (is(role, "server"))
        need(take(channel, (char[1]){ 0 }, 1) < 0, 13);
}

static int goes_round(void)
{
    return is(mode, "rounds") || is(mode, "asked") || is(mode, "stuck") || is(mode, "killed");
}

static void talk(struct libxenvchan *channel)
{
    if (goes_round()) {
        go_round(channel);
        return;
    }
    if (is(role, "server")) {
        take_all(channel, is(mode, "wrapper") ? 100 : MOVED);
        put_all(channel, 2);
        /* The end of the stream. */
        need(take(channel, (char[1]){ 0 }, 1) < 0, 13);
    } else {
        if (is(mode, "wrapper"))
            put_by_myself(channel, 100);
        else
            put_all(channel, MOVED);
        take_all(channel, 2);
    }
}

static void *one_of_two(void *name)
{
    struct libxenvchan *channel = meet(name);

    if (is(role, "server")) {
        printf("up\n");
        fflush(stdout);
    }
    talk(channel);
    end(channel);
    return NULL;
}

static volatile char *volatile nowhere = (volatile char *)8;
static sigjmp_buf back;
static volatile sig_atomic_t faults;

static void on_fault(int number)
{
    (void)number;
    faults++;
    siglongjmp(back, 1);
}

static void fault(void)
{
    if (!sigsetjmp(back, 1))
        *nowhere = 1;
}

static void serve_or_ask(void)
{
    struct libxenvchan *channel;

    if (is(mode, "handler"))
        signal(SIGSEGV, on_fault);
    channel = meet("talk");
    if (is(role, "server")) {
        printf("up\n");
        fflush(stdout);
    }
    if (is(mode, "inherited")) {
        if (fork()) {
            int status;

            wait(&status);
            need(WIFEXITED(status), 14);
            printf("%d\n", WEXITSTATUS(status));
        } else {
            talk(channel);
            _exit(0);
        }
    }
    if (is(mode, "handler")) {
        struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER }, before;

        fault();
        need(!sigaction(SIGSEGV, &action, &before) && before.sa_handler == on_fault, 15);
    }
    talk(channel);
    end(channel);
    if (is(mode, "handler")) {
        fault();
        need(faults == 2, 16);
    }
    if (is(mode, "exit"))
        _exit(0);
}

int main(int argc, char **argv)
{
    pthread_t threads[2];

    if (argc != 3)
        return 8;
    mode = argv[1];
    role = argv[2];
    find_library();
    if (is(mode, "threads")) {
        pthread_create(&threads[0], NULL, one_of_two, "first");
        pthread_create(&threads[1], NULL, one_of_two, "second");
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
    } else if (is(mode, "fork")) {
        int status;

        if (!fork()) {
            serve_or_ask();
            exit(0);
        }
        wait(&status);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 17;
    } else {
        serve_or_ask();
    }
    return 0;
}
