#define _GNU_SOURCE
#include "grants.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ports.h"

static unsigned long shared_pages_max(void)
{
    const char *text = getenv("VCHAN_LOOPBACK_GNTALLOC_LIMIT");

    return text && *text ? strtoul(text, NULL, 10) : 1024ul;
}

static unsigned long shared_pages(const struct host *host, uint32_t domid)
{
    unsigned long count = 0;

    for (uint32_t ref = GRANT_FIRST; ref < host->grants_top; ref++)
        count += host->grants[ref].used && host->grants[ref].shared &&
                 host->grants[ref].domid == domid;
    return count;
}

/* gntalloc hands out zeroed pages. A hole reads as zeros and gives the memory back. */
static int page_zero(const struct host_view *view, uint32_t ref)
{
    static const char zeros[HOST_PAGE_BYTES];
    off_t start = (off_t)ref * HOST_PAGE_BYTES;

    if (!fallocate(view->pages_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start,
                   HOST_PAGE_BYTES))
        return 0;
    return pwrite(view->pages_fd, zeros, sizeof(zeros), start) == sizeof(zeros) ? 0 : -1;
}

static int grant_create_locked(struct host_view *view, uint32_t handle, uint32_t peer_domid,
                               bool writable, uint32_t *from)
{
    for (uint32_t ref = *from; ref < GRANTS_MAX; ref++) {
        struct grant *grant = &view->host->grants[ref];

        if (grant->used)
            continue;
        if (page_zero(view, ref))
            return -1;
        if (view->host->grants_top <= ref)
            view->host->grants_top = ref + 1;
        grant->shared = 1;
        grant->handle = handle;
        grant->domid = view->domid;
        grant->peer_domid = peer_domid;
        grant->writable = writable;
        grant->mappings = 0;
        grant->notify = (struct unmap_notify){NO_OFFSET, NO_PORT};
        __atomic_store_n(&grant->used, 1, __ATOMIC_RELEASE);
        *from = ref + 1;
        return (int)ref;
    }
    errno = ENOSPC;
    return -1;
}

int grants_share_locked(struct host_view *view, uint32_t handle, uint32_t peer_domid,
                        uint32_t count, bool writable, uint32_t *refs)
{
    uint32_t from = GRANT_FIRST;

    if (shared_pages(view->host, view->domid) + count > shared_pages_max()) {
        errno = ENOSPC;
        return -1;
    }
    for (uint32_t i = 0; i < count; i++) {
        int ref = grant_create_locked(view, handle, peer_domid, writable, &from);

        if (ref < 0) {
            int failure = errno;

            while (i-- > 0)
                grant_unshare_locked(view, refs[i]);
            errno = failure;
            return -1;
        }
        refs[i] = (uint32_t)ref;
    }
    return 0;
}

static void grant_free_if_idle(struct grant *grant)
{
    /* A grant that the peer still maps cannot be revoked: it stays until the peer lets go. */
    if (!grant->shared && !grant->mappings)
        __atomic_store_n(&grant->used, 0, __ATOMIC_RELEASE);
}

void grant_unshare_locked(struct host_view *view, uint32_t ref)
{
    struct grant *grant = &view->host->grants[ref];

    notify_run_locked(view, ref, &grant->notify);
    grant->shared = 0;
    grant_free_if_idle(grant);
}

int grant_map_locked(struct host_view *view, uint32_t handle, uint32_t domid, uint32_t ref,
                     bool writable)
{
    struct host *host = view->host;
    struct grant *grant;

    if (ref < GRANT_FIRST || ref >= GRANTS_MAX) {
        errno = EINVAL;
        return -1;
    }
    grant = &host->grants[ref];
    if (!grant->used || !grant->shared || grant->domid != domid ||
        grant->peer_domid != view->domid || (writable && !grant->writable)) {
        errno = EINVAL;
        return -1;
    }
    for (uint32_t i = 0; i < MAPPINGS_MAX; i++) {
        struct mapping *mapping = &host->mappings[i];

        if (mapping->used)
            continue;
        if (host->mappings_top <= i)
            host->mappings_top = i + 1;
        mapping->handle = handle;
        mapping->grant = ref;
        mapping->notify = (struct unmap_notify){NO_OFFSET, NO_PORT};
        grant->mappings++;
        __atomic_store_n(&mapping->used, 1, __ATOMIC_RELEASE);
        return (int)i;
    }
    errno = ENOSPC;
    return -1;
}

void grant_unmap_locked(struct host_view *view, uint32_t slot)
{
    struct mapping *mapping = &view->host->mappings[slot];
    struct grant *grant = &view->host->grants[mapping->grant];

    notify_run_locked(view, mapping->grant, &mapping->notify);
    __atomic_store_n(&mapping->used, 0, __ATOMIC_RELEASE);
    grant->mappings--;
    grant_free_if_idle(grant);
}

void notify_run_locked(struct host_view *view, uint32_t page, struct unmap_notify *notify)
{
    if (notify->offset != NO_OFFSET) {
        uint8_t *start = mmap(NULL, HOST_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                              view->pages_fd, (off_t)page * HOST_PAGE_BYTES);

        if (start != MAP_FAILED) {
            __atomic_store_n(start + notify->offset, 0, __ATOMIC_SEQ_CST);
            munmap(start, HOST_PAGE_BYTES);
        }
        notify->offset = NO_OFFSET;
    }
    if (notify->port != NO_PORT) {
        port_send_locked(view, notify->port, -1);
        port_unhold_locked(view->host, notify->port);
        notify->port = NO_PORT;
    }
}

int notify_set_locked(struct host_view *view, struct unmap_notify *notify, uint32_t offset,
                      uint32_t port)
{
    if (port != NO_PORT && !port_owned(view->host, port, view->domid)) {
        errno = EINVAL;
        return -1;
    }
    notify->offset = offset < HOST_PAGE_BYTES ? offset : NO_OFFSET;
    notify->port = port;
    if (port != NO_PORT)
        port_hold_locked(view->host, port);
    return 0;
}
