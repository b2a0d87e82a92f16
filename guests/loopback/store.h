/*
 * xenstore's nodes on disk: node /a/b is the directory <dir>/store/a/b with one file, `.node`:
 *
 *   generation, decimal \n permissions, as in "n5 r7" \n value, any bytes
 *
 * A node's generation changes whenever it or its list of children changes. All of it wants the
 * host's lock. A `.node` file is replaced by rename, so a reader after a kill sees whole nodes.
 */
#ifndef VCHAN_LOOPBACK_STORE_H
#define VCHAN_LOOPBACK_STORE_H

#include <xenstore.h>

#include "host.h"

#define NODE_PATH_BYTES_MAX 3072u
#define NODE_PERMS_MAX 16u
#define NODE_VALUE_BYTES_MAX 4096u

struct node {
    uint64_t generation; /* 0: not on disk */
    uint32_t perms_count;
    uint32_t value_bytes;
    struct xs_permissions perms[NODE_PERMS_MAX];
    char value[NODE_VALUE_BYTES_MAX];
};

/* Make the empty store: the root alone, owned by domain 0. -1 with errno. */
int store_create(struct host_view *view);

/* -1 with errno, ENOENT when it is not there. */
int node_read_locked(const struct host_view *view, const char *path, struct node *node);

/* Its generation, 0 when it is not there. */
uint64_t node_generation_locked(const struct host_view *view, const char *path);

/* Write with a new generation; its parent must be there. -1 with errno. */
int node_write_locked(const struct host_view *view, const char *path, const struct node *node);

/* Remove it with all below. -1 with errno. */
int node_remove_locked(const struct host_view *view, const char *path);

/* Call visit(context, name) for each child. -1 with errno. */
int node_children_locked(const struct host_view *view, const char *path,
                         void (*visit)(void *context, const char *name), void *context);

/* The part of `path` above its last name, "/" at the end of the way; buffer of the path's size. */
void path_parent(const char *path, char *parent);

/* `path` + "/" + `name` into a buffer of NODE_PATH_BYTES_MAX. -1 with errno EINVAL. */
int path_join(const char *path, const char *name, char *joined);

#endif
