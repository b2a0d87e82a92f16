/* Event channels: the hypervisor's part and the kernel driver's (Linux drivers/xen/evtchn.c). */
#ifndef VCHAN_LOOPBACK_PORTS_H
#define VCHAN_LOOPBACK_PORTS_H

#include "host.h"

/* Open the queue of handle `id` for writing, or make it (create). fd, or -1 with errno. */
int queue_open(const struct host_view *view, uint32_t id, bool create);
void queue_remove(const struct host_view *view, uint32_t id);

/* New port of handle `handle` that waits for `remote_domid`. Port, or -1 with errno ENOSPC. */
int port_create_locked(struct host_view *view, uint32_t handle, uint32_t remote_domid);

/*
 * New port bound to the peer's; as in Xen it is raised once, because events that were sent while
 * the peer's port was unbound are lost. -1 with errno: ESRCH no such domain, EINVAL the peer's
 * port is not waiting for this domain, ENOSPC.
 */
int port_bind_locked(struct host_view *view, uint32_t handle, uint32_t remote_domid,
                     uint32_t remote_port);

/* Raise `port`. queue_fd: its owner's queue if it is open, else -1. */
void port_raise_locked(const struct host_view *view, uint32_t port, int queue_fd);

/* Send through the local port: raise what it is bound to. Unbound: dropped, as Xen does. */
void port_send_locked(const struct host_view *view, uint32_t port, int queue_fd);

void port_unmask_locked(const struct host_view *view, uint32_t port, int queue_fd);

/*
 * The handle lets go of the port. It is closed once nothing holds it: the peer's port then goes
 * back to unbound, without an event.
 */
void port_release_locked(struct host *host, uint32_t port);

/* An unmap notify holds the port that it will send through (Linux: evtchn_get, evtchn_put). */
void port_hold_locked(struct host *host, uint32_t port);
void port_unhold_locked(struct host *host, uint32_t port);

/* Is it an open port of domain `domid`? */
bool port_owned(const struct host *host, uint32_t port, uint32_t domid);

#endif
