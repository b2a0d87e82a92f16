/*
 * Watches on xenstore's nodes. A watch fires once when it is made and again whenever a node at its
 * path or below has changed since it was told of last: changes may come together in one firing, as
 * with Xen. Names with "@" fire when they are made and never again: domains of a loopback host end
 * with the host. The path that is told is the one that is watched, where Xen tells the node's.
 */
#ifndef VCHAN_LOOPBACK_WATCH_H
#define VCHAN_LOOPBACK_WATCH_H

#include "store.h"

struct watch {
    struct watch *next;
    char given[NODE_PATH_BYTES_MAX]; /* as it was asked for */
    char path[NODE_PATH_BYTES_MAX];  /* absolute; empty: a name with "@" */
    char token[NODE_PATH_BYTES_MAX];
    uint64_t told; /* the state that was told of last */
    bool fired;
};

/* A new watch for the domain's process, or NULL with errno (EINVAL, ENOMEM). */
struct watch *watch_new(uint32_t domid, const char *path, const char *token);

/* The first watch of the list that is to be told of, marked as told; NULL: none. */
struct watch *watch_due_locked(const struct host_view *view, struct watch *watches);

/* Sleep until the store is not as it was at this generation; 0, or -1 with errno EINTR. */
int watch_wait(const struct host *host, uint64_t generation);

/* Tell who sleeps that the store has changed. */
void watch_wake(const struct host *host);

#endif
