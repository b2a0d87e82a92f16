/*
 * xenstore's operations, each inside a transaction, with the permissions and errors of xenstored
 * (tools/xenstored/core.c and transaction.c, Xen 4.17).
 *
 * A transaction keeps its changes in memory together with the generation of every node that it
 * looked at. It ends with EAGAIN when one of these generations has moved meanwhile. An operation
 * outside of transactions is a transaction of its own, begun and ended under one lock.
 */
#ifndef VCHAN_LOOPBACK_TRANSACTION_H
#define VCHAN_LOOPBACK_TRANSACTION_H

#include "store.h"

/* A node that the transaction looked at, and what became of it. */
struct looked_at {
    struct looked_at *next;
    char path[NODE_PATH_BYTES_MAX];
    uint64_t generation; /* as on disk at the first look; 0: was not there */
    bool there;          /* as the transaction sees it */
    bool changed;
    struct node node;
};

struct transaction {
    struct transaction *next;
    uint32_t id;
    struct looked_at *nodes; /* sorted by path: parents before children */
};

/* The node's absolute path for domain domid, or -1 with errno EINVAL. */
int path_absolute(uint32_t domid, const char *path, char *absolute);

/* All of these: absolute paths; NULL or -1 with errno (ENOENT, EACCES, EPERM, EINVAL, ENOSPC). */
const struct node *transaction_read_locked(const struct host_view *view, struct transaction *t,
                                           const char *path);
int transaction_write_locked(const struct host_view *view, struct transaction *t, const char *path,
                             const void *value, uint32_t value_bytes);
int transaction_mkdir_locked(const struct host_view *view, struct transaction *t,
                             const char *path);
int transaction_rm_locked(const struct host_view *view, struct transaction *t, const char *path);
int transaction_set_perms_locked(const struct host_view *view, struct transaction *t,
                                 const char *path, const struct xs_permissions *perms,
                                 uint32_t perms_count);
int transaction_children_locked(const struct host_view *view, struct transaction *t,
                                const char *path,
                                void (*visit)(void *context, const char *name), void *context);

/* Write the changes out. -1 with errno, EAGAIN on a conflict. */
int transaction_commit_locked(const struct host_view *view, struct transaction *t);

/* Forget what the transaction holds in memory. */
void transaction_clear(struct transaction *t);

#endif
