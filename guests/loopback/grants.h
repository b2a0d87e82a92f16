/* Granted pages: the grant table and the kernel drivers (Linux drivers/xen/gntalloc.c, gntdev.c). */
#ifndef VCHAN_LOOPBACK_GRANTS_H
#define VCHAN_LOOPBACK_GRANTS_H

#include "host.h"

/*
 * Grant `count` zeroed pages to peer_domid. -1 with errno: ENOSPC above the domain's limit of
 * gntalloc pages (VCHAN_LOOPBACK_GNTALLOC_LIMIT, 1024 by default, as gntalloc's own parameter).
 */
int grants_share_locked(struct host_view *view, uint32_t handle, uint32_t peer_domid,
                        uint32_t count, bool writable, uint32_t *refs);

/* End the sharing of one page: run its notify, free it once nobody maps it. */
void grant_unshare_locked(struct host_view *view, uint32_t ref);

/*
 * Note that `handle` maps grant `ref` of domain `domid`. Slot in mappings, or -1 with errno
 * EINVAL: no such grant, not for this domain, or it was granted read-only.
 */
int grant_map_locked(struct host_view *view, uint32_t handle, uint32_t domid, uint32_t ref,
                     bool writable);
void grant_unmap_locked(struct host_view *view, uint32_t mapping);

/* Clear the byte, then raise the event, in the kernel's order. Done once. */
void notify_run_locked(struct host_view *view, uint32_t page, struct unmap_notify *notify);

/*
 * Set a notify on a page, as the library's arguments give it: an offset beyond the page means no
 * byte, port -1 no event. -1 with errno EINVAL: not a port of this domain.
 */
int notify_set_locked(struct host_view *view, struct unmap_notify *notify, uint32_t offset,
                      uint32_t port);

#endif
