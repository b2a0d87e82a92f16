/* libxenstore.so.4 over a loopback host, as far as libxenvchan, the binding and tests call it. */
#define _GNU_SOURCE
#include <xenstore.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transaction.h"
#include "watch.h"

struct xs_handle {
    struct host_view *view;
    struct transaction *transactions;
    struct watch *watches;
    uint32_t next_id;
    int fd; /* only an fd to hand out: it does not tell of watches */
};

/* One call: the transaction it belongs to, or one that begins and ends with it. */
struct call {
    struct host_view *view;
    struct transaction *transaction;
    struct transaction single;
    char path[NODE_PATH_BYTES_MAX];
    int saved_errno;
};

static struct transaction *transaction_find(struct xs_handle *h, xs_transaction_t id)
{
    struct transaction *t = h->transactions;

    while (t && t->id != id)
        t = t->next;
    return t;
}

/* Takes the host's lock when it returns true. */
static bool call_begin(struct call *call, struct xs_handle *h, xs_transaction_t t,
                       const char *path)
{
    call->saved_errno = errno;
    call->view = h->view;
    memset(&call->single, 0, sizeof(call->single));
    if (path_absolute(h->view->domid, path, call->path))
        return false;
    call->transaction = t == XBT_NULL ? &call->single : transaction_find(h, t);
    if (!call->transaction) {
        errno = ENOENT;
        return false;
    }
    host_lock(h->view->host);
    return true;
}

static bool call_end(struct call *call, bool done)
{
    int failure;

    if (done && call->transaction == &call->single)
        done = !transaction_commit_locked(call->view, &call->single);
    failure = errno;
    host_unlock(call->view->host);
    transaction_clear(&call->single);
    errno = done ? call->saved_errno : failure;
    return done;
}

struct xs_handle *xs_open(unsigned long flags)
{
    struct host_view *view = host_of_process();
    struct xs_handle *h;
    int saved = errno;

    (void)flags;
    if (!view)
        return NULL;
    h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->view = view;
    h->next_id = 1;
    h->fd = dup(view->pages_fd);
    errno = saved;
    return h;
}

struct xs_handle *xs_daemon_open(void)
{
    return xs_open(0);
}

struct xs_handle *xs_domain_open(void)
{
    return xs_open(0);
}

void xs_close(struct xs_handle *h)
{
    int saved = errno;

    if (!h)
        return;
    while (h->transactions) {
        struct transaction *next = h->transactions->next;

        transaction_clear(h->transactions);
        free(h->transactions);
        h->transactions = next;
    }
    while (h->watches) {
        struct watch *next = h->watches->next;

        free(h->watches);
        h->watches = next;
    }
    if (h->fd >= 0)
        close(h->fd);
    free(h);
    errno = saved;
}

void xs_daemon_close(struct xs_handle *h)
{
    xs_close(h);
}

int xs_fileno(struct xs_handle *h)
{
    return h->fd;
}

void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *len)
{
    const struct node *node;
    struct call call;
    char *value = NULL;

    if (!call_begin(&call, h, t, path))
        return NULL;
    node = transaction_read_locked(h->view, call.transaction, call.path);
    if (node) {
        value = malloc(node->value_bytes + 1);
        if (value) {
            memcpy(value, node->value, node->value_bytes);
            value[node->value_bytes] = '\0';
            if (len)
                *len = node->value_bytes;
        }
    }
    if (!call_end(&call, value != NULL)) {
        free(value);
        return NULL;
    }
    return value;
}

bool xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data,
              unsigned int len)
{
    struct call call;

    return call_begin(&call, h, t, path) &&
           call_end(&call, !transaction_write_locked(h->view, call.transaction, call.path, data,
                                                     len));
}

bool xs_mkdir(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    struct call call;

    return call_begin(&call, h, t, path) &&
           call_end(&call, !transaction_mkdir_locked(h->view, call.transaction, call.path));
}

bool xs_rm(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    struct call call;

    return call_begin(&call, h, t, path) &&
           call_end(&call, !transaction_rm_locked(h->view, call.transaction, call.path));
}

struct xs_permissions *xs_get_permissions(struct xs_handle *h, xs_transaction_t t,
                                          const char *path, unsigned int *num)
{
    struct xs_permissions *perms = NULL;
    const struct node *node;
    struct call call;

    if (!call_begin(&call, h, t, path))
        return NULL;
    node = transaction_read_locked(h->view, call.transaction, call.path);
    if (node) {
        perms = calloc(node->perms_count, sizeof(*perms));
        if (perms) {
            memcpy(perms, node->perms, node->perms_count * sizeof(*perms));
            *num = node->perms_count;
        }
    }
    if (!call_end(&call, perms != NULL)) {
        free(perms);
        return NULL;
    }
    return perms;
}

bool xs_set_permissions(struct xs_handle *h, xs_transaction_t t, const char *path,
                        struct xs_permissions *perms, unsigned int num_perms)
{
    struct call call;

    return call_begin(&call, h, t, path) &&
           call_end(&call, !transaction_set_perms_locked(h->view, call.transaction, call.path,
                                                         perms, num_perms));
}

struct names {
    char *text;
    size_t bytes;
    unsigned int count;
    bool failed;
};

static void name_add(void *context, const char *name)
{
    struct names *names = context;
    size_t bytes = strlen(name) + 1;
    char *text = realloc(names->text, names->bytes + bytes);

    if (!text) {
        names->failed = true;
        return;
    }
    memcpy(text + names->bytes, name, bytes);
    names->text = text;
    names->bytes += bytes;
    names->count++;
}

/* As the library returns them: one block, the pointers first and the text behind. */
static char **names_pack(const struct names *names)
{
    size_t pointer_bytes = (names->count + 1) * sizeof(char *);
    char **packed = malloc(pointer_bytes + names->bytes);
    char *text = packed ? (char *)packed + pointer_bytes : NULL;

    if (!packed)
        return NULL;
    if (names->bytes)
        memcpy(text, names->text, names->bytes);
    for (unsigned int i = 0; i < names->count; i++) {
        packed[i] = text;
        text += strlen(text) + 1;
    }
    packed[names->count] = NULL;
    return packed;
}

char **xs_directory(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *num)
{
    struct names names = {0};
    char **packed = NULL;
    struct call call;

    if (!call_begin(&call, h, t, path))
        return NULL;
    if (!transaction_children_locked(h->view, call.transaction, call.path, name_add, &names) &&
        !names.failed)
        packed = names_pack(&names);
    if (packed)
        *num = names.count;
    free(names.text);
    if (!call_end(&call, packed != NULL)) {
        free(packed);
        return NULL;
    }
    return packed;
}

xs_transaction_t xs_transaction_start(struct xs_handle *h)
{
    struct transaction *t = calloc(1, sizeof(*t));

    if (!t)
        return XBT_NULL;
    t->id = h->next_id++;
    t->next = h->transactions;
    h->transactions = t;
    return t->id;
}

bool xs_transaction_end(struct xs_handle *h, xs_transaction_t id, bool abort)
{
    struct transaction **link = &h->transactions;
    struct transaction *t;
    int failure = 0, saved = errno;

    while (*link && (*link)->id != id)
        link = &(*link)->next;
    if (!*link) {
        errno = ENOENT;
        return false;
    }
    t = *link;
    *link = t->next;
    if (!abort) {
        host_lock(h->view->host);
        if (transaction_commit_locked(h->view, t))
            failure = errno;
        host_unlock(h->view->host);
    }
    transaction_clear(t);
    free(t);
    errno = failure ? failure : saved;
    return !failure;
}

char *xs_get_domain_path(struct xs_handle *h, unsigned int domid)
{
    char *path = NULL;

    (void)h;
    return asprintf(&path, "/local/domain/%u", domid) < 0 ? NULL : path;
}

bool xs_is_domain_introduced(struct xs_handle *h, unsigned int domid)
{
    return domain_exists(h->view->host, domid);
}

bool xs_watch(struct xs_handle *h, const char *path, const char *token)
{
    struct watch *watch = watch_new(h->view->domid, path, token), **end = &h->watches;

    if (!watch)
        return false;
    while (*end)
        end = &(*end)->next;
    *end = watch;
    return true;
}

bool xs_unwatch(struct xs_handle *h, const char *path, const char *token)
{
    for (struct watch **link = &h->watches; *link; link = &(*link)->next) {
        struct watch *watch = *link;

        if (strcmp(watch->given, path) || strcmp(watch->token, token))
            continue;
        *link = watch->next;
        free(watch);
        return true;
    }
    errno = ENOENT;
    return false;
}

/* What is due now, packed as the library does it: path and token. NULL with errno EAGAIN. */
static char **due_now(struct xs_handle *h, uint64_t *generation)
{
    struct names told = {0};
    struct watch *watch;
    char **packed = NULL;

    host_lock(h->view->host);
    *generation = h->view->host->store_generation;
    watch = watch_due_locked(h->view, h->watches);
    host_unlock(h->view->host);
    errno = EAGAIN;
    if (!watch)
        return NULL;
    name_add(&told, watch->given);
    name_add(&told, watch->token);
    if (!told.failed)
        packed = names_pack(&told);
    free(told.text);
    return packed;
}

char **xs_check_watch(struct xs_handle *h)
{
    uint64_t generation;

    return due_now(h, &generation);
}

char **xs_read_watch(struct xs_handle *h, unsigned int *num)
{
    int saved = errno;

    for (;;) {
        uint64_t generation;
        char **told = due_now(h, &generation);

        if (told) {
            *num = 2;
            errno = saved;
            return told;
        }
        if (errno != EAGAIN || watch_wait(h->view->host, generation))
            return NULL;
    }
}
