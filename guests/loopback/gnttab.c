/* libxengnttab.so.1 over a loopback host: the calls of /dev/xen/gntdev and /dev/xen/gntalloc. */
#define _GNU_SOURCE
#include <xengnttab.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "grants.h"

/* Pages that this handle shares or maps: refs for gntalloc, slots in mappings for gntdev. */
struct area {
    struct area *next;
    uint8_t *address;
    uint32_t pages;
    uint32_t entries[];
};

/* The library has one type for both devices. */
struct xengntdev_handle {
    struct host_view *view;
    uint32_t handle;
    int fd; /* only an fd to hand out */
    struct area *areas;
};

typedef void (*release_fn)(struct host_view *view, uint32_t entry);

static int fail(int failure)
{
    errno = failure;
    return -1;
}

static struct xengntdev_handle *device_open(enum handle_kind kind)
{
    struct host_view *view = host_of_process();
    struct xengntdev_handle *device;
    int handle, saved = errno;

    if (!view)
        return NULL;
    device = calloc(1, sizeof(*device));
    if (!device)
        return NULL;
    device->view = view;
    host_lock(view->host);
    handle = handle_create_locked(view, kind);
    host_unlock(view->host);
    if (handle < 0) {
        free(device);
        errno = ENFILE;
        return NULL;
    }
    device->handle = (uint32_t)handle;
    device->fd = dup(view->pages_fd);
    errno = saved;
    return device;
}

static void area_release_locked(struct xengntdev_handle *device, struct area **link,
                                release_fn release)
{
    struct area *area = *link;

    for (uint32_t i = 0; i < area->pages; i++)
        release(device->view, area->entries[i]);
    *link = area->next;
    free(area);
}

static int device_close(struct xengntdev_handle *device, release_fn release)
{
    struct host *host;
    int saved = errno;

    if (!device)
        return 0;
    host = device->view->host;
    host_lock(host);
    while (device->areas)
        area_release_locked(device, &device->areas, release);
    host->handles[device->handle].kind = HANDLE_FREE;
    host_unlock(host);
    if (device->fd >= 0)
        close(device->fd);
    free(device);
    errno = saved;
    return 0;
}

static struct area **area_find(struct xengntdev_handle *device, const void *address)
{
    struct area **link = &device->areas;

    while (*link && (*link)->address != address)
        link = &(*link)->next;
    return *link ? link : NULL;
}

static struct area *area_create(uint32_t pages)
{
    struct area *area = NULL;

    if (pages && pages < GRANTS_MAX)
        area = calloc(1, sizeof(*area) + pages * sizeof(area->entries[0]));
    else
        errno = EINVAL;
    if (area)
        area->pages = pages;
    return area;
}

/* Pages of one area need not be neighbours in the file: reserve the range, then page by page. */
static uint8_t *pages_map(const struct host_view *view, uint32_t count, const uint32_t *refs,
                          int prot)
{
    uint8_t *start = mmap(NULL, (size_t)count * HOST_PAGE_BYTES, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (start == MAP_FAILED)
        return NULL;
    for (uint32_t i = 0, run; i < count; i += run) {
        run = 1;
        while (i + run < count && refs[i + run] == refs[i] + run)
            run++;
        if (mmap(start + (size_t)i * HOST_PAGE_BYTES, (size_t)run * HOST_PAGE_BYTES, prot,
                 MAP_SHARED | MAP_FIXED, view->pages_fd,
                 (off_t)refs[i] * HOST_PAGE_BYTES) == MAP_FAILED) {
            int failure = errno;

            munmap(start, (size_t)count * HOST_PAGE_BYTES);
            errno = failure;
            return NULL;
        }
    }
    return start;
}

/*
 * libxenvchan_close unmaps a server's ring with munmap alone, and the kernel then ends the
 * sharing. It cannot be seen here until the address comes back for another area or the handle is
 * closed, which libxenvchan_close does in the same call.
 */
static void area_add_locked(struct xengntdev_handle *device, struct area *area, release_fn release)
{
    struct area **stale = release ? area_find(device, area->address) : NULL;

    if (stale)
        area_release_locked(device, stale, release);
    area->next = device->areas;
    device->areas = area;
}

/* ---- gntalloc: the side that grants ---- */

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger, unsigned open_flags)
{
    (void)logger;
    (void)open_flags;
    return device_open(HANDLE_GNTSHR);
}

int xengntshr_close(xengntshr_handle *xgs)
{
    return device_close(xgs, grant_unshare_locked);
}

int xengntshr_fd(xengntshr_handle *xgs)
{
    return xgs->fd;
}

static int share_locked(xengntshr_handle *xgs, uint32_t domid, struct area *area, bool writable,
                        uint32_t notify_offset, uint32_t notify_port)
{
    struct host_view *view = xgs->view;
    int failure;

    if (domid == view->domid)
        return fail(EINVAL);
    if (grants_share_locked(view, xgs->handle, domid, area->pages, writable, area->entries))
        return -1;
    area->address = pages_map(view, area->pages, area->entries, PROT_READ | PROT_WRITE);
    if (area->address) {
        if (!notify_set_locked(view, &view->host->grants[area->entries[0]].notify, notify_offset,
                               notify_port)) {
            area_add_locked(xgs, area, grant_unshare_locked);
            return 0;
        }
        failure = errno;
        munmap(area->address, (size_t)area->pages * HOST_PAGE_BYTES);
    } else {
        failure = errno;
    }
    for (uint32_t i = 0; i < area->pages; i++)
        grant_unshare_locked(view, area->entries[i]);
    return fail(failure);
}

static void *share(xengntshr_handle *xgs, uint32_t domid, int count, uint32_t *refs, int writable,
                   uint32_t notify_offset, uint32_t notify_port)
{
    struct area *area = area_create(count > 0 ? (uint32_t)count : 0);
    int failed, failure;
    void *address;

    if (!area)
        return NULL;
    host_lock(xgs->view->host);
    failed = share_locked(xgs, domid, area, writable, notify_offset, notify_port);
    failure = errno;
    host_unlock(xgs->view->host);
    if (failed) {
        free(area);
        errno = failure;
        return NULL;
    }
    address = area->address;
    for (uint32_t i = 0; i < area->pages; i++)
        refs[i] = area->entries[i];
    return address;
}

void *xengntshr_share_pages(xengntshr_handle *xgs, uint32_t domid, int count, uint32_t *refs,
                            int writable)
{
    return share(xgs, domid, count, refs, writable, NO_OFFSET, NO_PORT);
}

void *xengntshr_share_page_notify(xengntshr_handle *xgs, uint32_t domid, uint32_t *ref,
                                  int writable, uint32_t notify_offset,
                                  evtchn_port_t notify_port)
{
    return share(xgs, domid, 1, ref, writable, notify_offset, notify_port);
}

int xengntshr_unshare(xengntshr_handle *xgs, void *start_address, uint32_t count)
{
    struct area **link;
    int saved = errno;

    host_lock(xgs->view->host);
    link = area_find(xgs, start_address);
    if (!link || (*link)->pages != count) {
        host_unlock(xgs->view->host);
        return fail(EINVAL);
    }
    munmap(start_address, (size_t)count * HOST_PAGE_BYTES);
    area_release_locked(xgs, link, grant_unshare_locked);
    host_unlock(xgs->view->host);
    errno = saved;
    return 0;
}

/* ---- gntdev: the side that maps ---- */

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned open_flags)
{
    (void)logger;
    (void)open_flags;
    return device_open(HANDLE_GNTTAB);
}

int xengnttab_close(xengnttab_handle *xgt)
{
    return device_close(xgt, grant_unmap_locked);
}

int xengnttab_fd(xengnttab_handle *xgt)
{
    return xgt->fd;
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t nr_grants)
{
    (void)xgt;
    (void)nr_grants;
    return 0; /* without effect on Linux too */
}

static int map_locked(xengnttab_handle *xgt, struct area *area, const uint32_t *domids,
                      size_t domids_stride, const uint32_t *refs, int prot,
                      uint32_t notify_offset, uint32_t notify_port)
{
    struct host_view *view = xgt->view;
    uint32_t done = 0;
    int failure = 0;

    for (; done < area->pages && !failure; done++) {
        uint32_t domid = domids[done * domids_stride];
        int slot = domid == view->domid ? fail(EINVAL)
                                        : grant_map_locked(view, xgt->handle, domid, refs[done],
                                                           prot & PROT_WRITE);

        if (slot < 0)
            failure = errno;
        else
            area->entries[done] = (uint32_t)slot;
    }
    if (failure)
        done--; /* the entry that failed */
    if (!failure) {
        area->address = pages_map(view, area->pages, refs, prot);
        if (area->address &&
            !notify_set_locked(view, &view->host->mappings[area->entries[0]].notify,
                               notify_offset, notify_port)) {
            area_add_locked(xgt, area, NULL);
            return 0;
        }
        failure = errno;
        if (area->address)
            munmap(area->address, (size_t)area->pages * HOST_PAGE_BYTES);
    }
    while (done-- > 0)
        grant_unmap_locked(view, area->entries[done]);
    return fail(failure);
}

static void *map(xengnttab_handle *xgt, uint32_t count, const uint32_t *domids,
                 size_t domids_stride, const uint32_t *refs, int prot, uint32_t notify_offset,
                 uint32_t notify_port)
{
    struct area *area = area_create(count);
    int failed, failure, saved = errno;

    if (!area)
        return NULL;
    host_lock(xgt->view->host);
    failed = map_locked(xgt, area, domids, domids_stride, refs, prot, notify_offset, notify_port);
    failure = errno;
    host_unlock(xgt->view->host);
    if (failed) {
        free(area);
        errno = failure;
        return NULL;
    }
    errno = saved;
    return area->address;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
    return map(xgt, 1, &domid, 0, &ref, prot, NO_OFFSET, NO_PORT);
}

void *xengnttab_map_grant_refs(xengnttab_handle *xgt, uint32_t count, uint32_t *domids,
                               uint32_t *refs, int prot)
{
    return map(xgt, count, domids, 1, refs, prot, NO_OFFSET, NO_PORT);
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *xgt, uint32_t count, uint32_t domid,
                                      uint32_t *refs, int prot)
{
    return map(xgt, count, &domid, 0, refs, prot, NO_OFFSET, NO_PORT);
}

void *xengnttab_map_grant_ref_notify(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot,
                                     uint32_t notify_offset, evtchn_port_t notify_port)
{
    return map(xgt, 1, &domid, 0, &ref, prot, notify_offset, notify_port);
}

int xengnttab_unmap(xengnttab_handle *xgt, void *start_address, uint32_t count)
{
    struct area **link;
    int saved = errno;

    host_lock(xgt->view->host);
    link = area_find(xgt, start_address);
    if (!link || (*link)->pages != count) {
        host_unlock(xgt->view->host);
        return fail(EINVAL);
    }
    munmap(start_address, (size_t)count * HOST_PAGE_BYTES);
    area_release_locked(xgt, link, grant_unmap_locked);
    host_unlock(xgt->view->host);
    errno = saved;
    return 0;
}
