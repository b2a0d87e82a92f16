#define _GNU_SOURCE
#include "watch.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "transaction.h"

#define MIX 0x9e3779b97f4a7c15u

/* A process that is killed between its change and its call wakes nobody: who sleeps looks itself. */
static const struct timespec look_again = { .tv_sec = 1 };

struct watch *watch_new(uint32_t domid, const char *path, const char *token)
{
    struct watch *watch;

    if (strlen(path) >= sizeof(watch->given) || strlen(token) >= sizeof(watch->token)) {
        errno = EINVAL;
        return NULL;
    }
    watch = calloc(1, sizeof(*watch));
    if (!watch)
        return NULL;
    strcpy(watch->given, path);
    strcpy(watch->token, token);
    if (*path != '@' && path_absolute(domid, path, watch->path)) {
        free(watch);
        return NULL;
    }
    return watch;
}

struct walk {
    const struct host_view *view;
    const char *path;
    uint64_t sum;
};

static uint64_t state_locked(const struct host_view *view, const char *path);

static void add_child(void *context, const char *name)
{
    struct walk *walk = context;
    char child[NODE_PATH_BYTES_MAX];

    if (!path_join(walk->path, name, child))
        walk->sum += state_locked(walk->view, child);
}

/* A number for a node and all below: another one when any of them has changed. 0: not there. */
static uint64_t state_locked(const struct host_view *view, const char *path)
{
    struct walk walk = { view, path, node_generation_locked(view, path) * MIX };

    if (walk.sum)
        node_children_locked(view, path, add_child, &walk);
    return walk.sum;
}

struct watch *watch_due_locked(const struct host_view *view, struct watch *watches)
{
    for (struct watch *watch = watches; watch; watch = watch->next) {
        uint64_t now = *watch->path ? state_locked(view, watch->path) : 0;

        if (watch->fired && watch->told == now)
            continue;
        watch->fired = true;
        watch->told = now;
        return watch;
    }
    return NULL;
}

/* The lower half of the store's generation is what sleepers look at: x86 has it first. */
static uint32_t *word_of(const struct host *host)
{
    return (uint32_t *)(uintptr_t)&host->store_generation;
}

int watch_wait(const struct host *host, uint64_t generation)
{
    if (!syscall(SYS_futex, word_of(host), FUTEX_WAIT, (uint32_t)generation, &look_again) ||
        errno != EINTR)
        return 0;
    return -1;
}

void watch_wake(const struct host *host)
{
    int saved = errno;

    syscall(SYS_futex, word_of(host), FUTEX_WAKE, INT_MAX);
    errno = saved;
}
