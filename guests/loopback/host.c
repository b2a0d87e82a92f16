#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    int failure = pthread_mutexattr_init(&attributes);

    if (!failure)
        failure = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (!failure)
        failure = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (!failure)
        failure = pthread_mutex_init(lock, &attributes);
    errno = failure;
    return failure ? -1 : 0;
}

static struct host *state_map(int dir_fd, int flags)
{
    int fd = openat(dir_fd, "state", O_RDWR | O_CLOEXEC | flags, 0600);
    struct host *host = NULL;

    if (fd < 0)
        return NULL;
    if (!(flags & O_CREAT) || !ftruncate(fd, sizeof(*host))) {
        host = mmap(NULL, sizeof(*host), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (host == MAP_FAILED)
            host = NULL;
    }
    close(fd);
    return host;
}

int host_create(int dir_fd)
{
    struct host *host;
    int pages_fd;

    if (mkdirat(dir_fd, "events", 0700) && errno != EEXIST)
        return -1;
    pages_fd = openat(dir_fd, "pages", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (pages_fd < 0)
        return -1;
    if (ftruncate(pages_fd, (off_t)GRANTS_MAX * HOST_PAGE_BYTES)) {
        close(pages_fd);
        return -1;
    }
    close(pages_fd);
    host = state_map(dir_fd, O_CREAT | O_EXCL);
    if (!host)
        return -1;
    if (lock_init(&host->lock)) {
        munmap(host, sizeof(*host));
        return -1;
    }
    host->version = HOST_VERSION;
    host->next_handle_id = 1;
    host->grants_top = GRANT_FIRST;
    host->magic = HOST_MAGIC;
    munmap(host, sizeof(*host));
    return 0;
}

int host_map(struct host_view *view, int dir_fd, uint32_t domid)
{
    struct host *host = state_map(dir_fd, 0);

    if (!host)
        return -1;
    if (host->magic != HOST_MAGIC || host->version != HOST_VERSION) {
        munmap(host, sizeof(*host));
        errno = EPROTO;
        return -1;
    }
    view->pages_fd = openat(dir_fd, "pages", O_RDWR | O_CLOEXEC);
    if (view->pages_fd < 0) {
        munmap(host, sizeof(*host));
        return -1;
    }
    view->host = host;
    view->dir_fd = dir_fd;
    view->domid = domid;
    return 0;
}

/* A socket's name may have 108 bytes only, a directory's may be longer: go through its fd. */
static int guardian_register(int dir_fd)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char answer;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int done = -1;

    if (fd < 0)
        return -1;
    snprintf(name.sun_path, sizeof(name.sun_path), "/proc/self/fd/%d/guardian", dir_fd);
    if (!connect(fd, (struct sockaddr *)&name, sizeof(name)) && send(fd, "R\n", 2, 0) == 2) {
        ssize_t got;

        do
            got = recv(fd, &answer, 1, 0);
        while (got < 0 && errno == EINTR);
        if (got == 1)
            done = 0;
        else if (got == 0)
            errno = ECONNREFUSED;
    }
    if (done) {
        int failure = errno;

        close(fd);
        errno = failure;
        return -1;
    }
    close(fd);
    return 0;
}

static int domid_of_environment(uint32_t *domid)
{
    const char *text = getenv("VCHAN_LOOPBACK_DOMID");
    char *end;
    unsigned long value;

    if (!text || !*text) {
        errno = ENOENT;
        return -1;
    }
    value = strtoul(text, &end, 10);
    if (*end || value >= DOMAINS_MAX) {
        errno = EINVAL;
        return -1;
    }
    *domid = (uint32_t)value;
    return 0;
}

static int view_open(struct host_view *view)
{
    const char *dir = getenv("VCHAN_LOOPBACK_DIR");
    uint32_t domid;
    int dir_fd, failure;

    if (!dir || !*dir) {
        errno = ENOENT;
        return -1;
    }
    if (domid_of_environment(&domid))
        return -1;
    dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return -1;
    if (!host_map(view, dir_fd, domid)) {
        if (domain_exists(view->host, domid) && !guardian_register(dir_fd))
            return 0;
        failure = domain_exists(view->host, domid) ? errno : ESRCH;
        close(view->pages_fd);
        munmap(view->host, sizeof(*view->host));
        errno = failure;
    }
    failure = errno;
    close(dir_fd);
    errno = failure;
    return -1;
}

struct host_view *host_of_process(void)
{
    static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
    static struct host_view view;
    static pid_t registered;
    struct host_view *result = NULL;

    pthread_mutex_lock(&opening);
    if (!view.host) {
        if (!view_open(&view)) {
            registered = getpid();
            result = &view;
        }
    } else if (registered != getpid()) {
        /* A forked child has the parent's mapping, but nobody watches it yet. */
        if (!guardian_register(view.dir_fd)) {
            registered = getpid();
            result = &view;
        }
    } else {
        result = &view;
    }
    pthread_mutex_unlock(&opening);
    return result;
}

/* What a killed owner of the lock may have left half done: counts, and ends bound to each other. */
static void repair_locked(struct host *host)
{
    for (uint32_t i = PORT_FIRST; i < PORTS_MAX; i++) {
        struct port *port = &host->ports[i];
        const struct port *remote = &host->ports[port->remote_port];

        port->holds = 0;
        if (port->state == PORT_INTERDOMAIN &&
            (remote->state != PORT_INTERDOMAIN || remote->remote_port != i))
            port->state = PORT_UNBOUND;
    }
    for (uint32_t i = GRANT_FIRST; i < host->grants_top; i++)
        host->grants[i].mappings = 0;
    for (uint32_t i = 0; i < host->mappings_top; i++) {
        const struct mapping *mapping = &host->mappings[i];

        host->grants[mapping->grant].mappings += mapping->used;
        if (mapping->used && mapping->notify.port != NO_PORT)
            host->ports[mapping->notify.port].holds++;
    }
    for (uint32_t i = GRANT_FIRST; i < host->grants_top; i++) {
        struct grant *grant = &host->grants[i];

        if (grant->used && grant->shared && grant->notify.port != NO_PORT)
            host->ports[grant->notify.port].holds++;
        if (!grant->shared && !grant->mappings)
            grant->used = 0;
    }
}

void host_lock(struct host *host)
{
    int failure = pthread_mutex_lock(&host->lock);

    if (failure == EOWNERDEAD) {
        repair_locked(host);
        failure = pthread_mutex_consistent(&host->lock);
    }
    if (failure) {
        fprintf(stderr, "vchan loopback: the host's lock is broken: %s\n", strerror(failure));
        abort();
    }
}

void host_unlock(struct host *host)
{
    pthread_mutex_unlock(&host->lock);
}

int handle_create_locked(struct host_view *view, enum handle_kind kind)
{
    struct host *host = view->host;

    for (uint32_t i = 0; i < HANDLES_MAX; i++) {
        struct handle *handle = &host->handles[i];

        if (handle->kind != HANDLE_FREE)
            continue;
        handle->id = host->next_handle_id++;
        handle->pid = getpid();
        handle->domid = view->domid;
        __atomic_store_n(&handle->kind, kind, __ATOMIC_RELEASE);
        return (int)i;
    }
    errno = ENFILE;
    return -1;
}

bool domain_exists(const struct host *host, uint32_t domid)
{
    return domid < DOMAINS_MAX && host->domains[domid];
}
