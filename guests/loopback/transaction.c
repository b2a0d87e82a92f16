#define _GNU_SOURCE
#include "transaction.h"
#include "watch.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(int failure)
{
    errno = failure;
    return -1;
}

int path_absolute(uint32_t domid, const char *path, char *absolute)
{
    int bytes;

    if (path[0] == '/')
        bytes = snprintf(absolute, NODE_PATH_BYTES_MAX, "%s", path);
    else
        bytes = snprintf(absolute, NODE_PATH_BYTES_MAX, "/local/domain/%u/%s", domid, path);
    if (bytes < 1 || (unsigned int)bytes >= NODE_PATH_BYTES_MAX)
        return fail(EINVAL);
    if (!strcmp(absolute, "/"))
        return 0;
    if (absolute[bytes - 1] == '/' || strstr(absolute, "//"))
        return fail(EINVAL);
    for (const char *c = absolute; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-/_@", *c))
            return fail(EINVAL);
    return 0;
}

static struct looked_at *look_locked(const struct host_view *view, struct transaction *t,
                                     const char *path)
{
    struct looked_at **link = &t->nodes;
    struct looked_at *entry;
    int order = 1;

    while (*link && (order = strcmp((*link)->path, path)) < 0)
        link = &(*link)->next;
    if (*link && !order)
        return *link;
    entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    strcpy(entry->path, path);
    entry->there = !node_read_locked(view, path, &entry->node);
    entry->generation = entry->there ? entry->node.generation : 0;
    entry->next = *link;
    *link = entry;
    return entry;
}

static unsigned int rights(const struct host_view *view, const struct node *node)
{
    if (view->domid == 0 || node->perms[0].id == view->domid)
        return XS_PERM_READ | XS_PERM_WRITE | XS_PERM_OWNER;
    for (uint32_t i = 1; i < node->perms_count; i++)
        if (node->perms[i].id == view->domid)
            return node->perms[i].perms;
    return node->perms[0].perms;
}

/* The nearest node above that is there. The root always is. */
static struct looked_at *ancestor_locked(const struct host_view *view, struct transaction *t,
                                         const char *path)
{
    char above[NODE_PATH_BYTES_MAX];
    struct looked_at *entry;

    strcpy(above, path);
    do {
        path_parent(above, above);
        entry = look_locked(view, t, above);
    } while (entry && !entry->there && strcmp(above, "/"));
    return entry;
}

/*
 * The node with the right `wanted`. Who may not look into the nearest node above learns EACCES
 * also about what is not there: a missing path in a foreign domain's home is not ENOENT.
 */
static struct looked_at *get_locked(const struct host_view *view, struct transaction *t,
                                    const char *path, unsigned int wanted)
{
    struct looked_at *entry = look_locked(view, t, path);
    const struct looked_at *above;

    if (!entry)
        return NULL;
    if (entry->there) {
        if ((rights(view, &entry->node) & wanted) == wanted)
            return entry;
        errno = EACCES;
        return NULL;
    }
    above = ancestor_locked(view, t, path);
    if (above)
        errno = rights(view, &above->node) & wanted ? ENOENT : EACCES;
    return NULL;
}

const struct node *transaction_read_locked(const struct host_view *view, struct transaction *t,
                                           const char *path)
{
    struct looked_at *entry = get_locked(view, t, path, XS_PERM_READ);

    return entry ? &entry->node : NULL;
}

/* Make the node and what is missing above, with the permissions of the nearest one above. */
static struct looked_at *create_locked(const struct host_view *view, struct transaction *t,
                                       const char *path)
{
    struct looked_at *entry = look_locked(view, t, path);
    struct looked_at *parent;
    char above[NODE_PATH_BYTES_MAX];

    if (!entry || entry->there)
        return entry;
    path_parent(path, above);
    parent = create_locked(view, t, above);
    if (!parent)
        return NULL;
    parent->changed = true; /* its list of children */
    memset(&entry->node, 0, sizeof(entry->node));
    entry->node.perms_count = parent->node.perms_count;
    memcpy(entry->node.perms, parent->node.perms, sizeof(entry->node.perms));
    if (view->domid != 0)
        entry->node.perms[0].id = view->domid;
    entry->there = true;
    entry->changed = true;
    return entry;
}

int transaction_write_locked(const struct host_view *view, struct transaction *t, const char *path,
                             const void *value, uint32_t value_bytes)
{
    struct looked_at *entry = get_locked(view, t, path, XS_PERM_WRITE);

    if (value_bytes > NODE_VALUE_BYTES_MAX)
        return fail(ENOSPC);
    if (!entry && errno == ENOENT)
        entry = create_locked(view, t, path);
    if (!entry)
        return -1;
    memcpy(entry->node.value, value, value_bytes);
    entry->node.value_bytes = value_bytes;
    entry->changed = true;
    return 0;
}

int transaction_mkdir_locked(const struct host_view *view, struct transaction *t,
                             const char *path)
{
    struct looked_at *entry = get_locked(view, t, path, XS_PERM_WRITE);

    if (!entry && errno == ENOENT)
        entry = create_locked(view, t, path);
    return entry ? 0 : -1;
}

struct listing {
    struct transaction *transaction;
    const char *path;
    void (*visit)(void *context, const char *name);
    void *context;
};

static const struct looked_at *known(const struct transaction *t, const char *path)
{
    for (const struct looked_at *entry = t->nodes; entry; entry = entry->next)
        if (!strcmp(entry->path, path))
            return entry;
    return NULL;
}

/* Of the children on disk, those that the transaction has not looked at. */
static void child_on_disk(void *context, const char *name)
{
    const struct listing *listing = context;
    char child[NODE_PATH_BYTES_MAX];

    if (!path_join(listing->path, name, child) && !known(listing->transaction, child))
        listing->visit(listing->context, name);
}

/* The children whoever asks. */
static int children_locked(const struct host_view *view, struct transaction *t, const char *path,
                           void (*visit)(void *context, const char *name), void *context)
{
    struct listing listing = {t, path, visit, context};
    char above[NODE_PATH_BYTES_MAX];

    for (const struct looked_at *entry = t->nodes; entry; entry = entry->next) {
        path_parent(entry->path, above);
        if (entry->there && strcmp(entry->path, "/") && !strcmp(above, path))
            visit(context, strrchr(entry->path, '/') + 1);
    }
    if (node_children_locked(view, path, child_on_disk, &listing) && errno != ENOENT)
        return -1;
    return 0;
}

int transaction_children_locked(const struct host_view *view, struct transaction *t,
                                const char *path,
                                void (*visit)(void *context, const char *name), void *context)
{
    if (!get_locked(view, t, path, XS_PERM_READ))
        return -1;
    return children_locked(view, t, path, visit, context);
}

struct subtree {
    const struct host_view *view;
    struct transaction *transaction;
    const char *path;
    int failed;
};

static void child_forget(void *context, const char *name);

static int forget_locked(const struct host_view *view, struct transaction *t, const char *path)
{
    struct looked_at *entry = look_locked(view, t, path);
    struct subtree subtree = {view, t, path, 0};

    if (!entry)
        return -1;
    if (!entry->there)
        return 0;
    if (children_locked(view, t, path, child_forget, &subtree) || subtree.failed)
        return -1;
    entry->there = false;
    entry->changed = true;
    return 0;
}

static void child_forget(void *context, const char *name)
{
    struct subtree *subtree = context;
    char child[NODE_PATH_BYTES_MAX];

    if (path_join(subtree->path, name, child) ||
        forget_locked(subtree->view, subtree->transaction, child))
        subtree->failed = -1;
}

int transaction_rm_locked(const struct host_view *view, struct transaction *t, const char *path)
{
    struct looked_at *entry = get_locked(view, t, path, XS_PERM_WRITE);
    struct looked_at *parent;
    char above[NODE_PATH_BYTES_MAX];

    if (!strcmp(path, "/"))
        return fail(EINVAL);
    if (!entry && errno != ENOENT)
        return -1;
    path_parent(path, above);
    parent = look_locked(view, t, above);
    if (!parent)
        return -1;
    if (!entry) /* nothing to remove is no error, as long as its parent is there */
        return parent->there ? 0 : fail(ENOENT);
    parent->changed = true;
    return forget_locked(view, t, path);
}

int transaction_set_perms_locked(const struct host_view *view, struct transaction *t,
                                 const char *path, const struct xs_permissions *perms,
                                 uint32_t perms_count)
{
    struct looked_at *entry = get_locked(view, t, path, XS_PERM_WRITE | XS_PERM_OWNER);

    if (!entry)
        return -1;
    if (!perms_count)
        return fail(EINVAL);
    if (perms_count > NODE_PERMS_MAX)
        return fail(ENOSPC);
    if (view->domid != 0 && perms[0].id != entry->node.perms[0].id)
        return fail(EPERM);
    memcpy(entry->node.perms, perms, perms_count * sizeof(*perms));
    entry->node.perms_count = perms_count;
    entry->changed = true;
    return 0;
}

int transaction_commit_locked(const struct host_view *view, struct transaction *t)
{
    uint64_t before = view->host->store_generation;

    for (const struct looked_at *entry = t->nodes; entry; entry = entry->next)
        if (node_generation_locked(view, entry->path) != entry->generation)
            return fail(EAGAIN);
    for (const struct looked_at *entry = t->nodes; entry; entry = entry->next) {
        if (!entry->changed)
            continue;
        if (entry->there) {
            if (node_write_locked(view, entry->path, &entry->node))
                return -1;
        } else if (node_remove_locked(view, entry->path) && errno != ENOENT) {
            return -1;
        }
    }
    if (view->host->store_generation != before)
        watch_wake(view->host);
    return 0;
}

void transaction_clear(struct transaction *t)
{
    while (t->nodes) {
        struct looked_at *next = t->nodes->next;

        free(t->nodes);
        t->nodes = next;
    }
}
