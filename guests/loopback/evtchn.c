/* libxenevtchn.so.1 over a loopback host: the calls of /dev/xen/evtchn. */
#define _GNU_SOURCE
#include <xenevtchn.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "ports.h"

/* The peer's queue, kept open between notifies: opening it each time costs more than the rest. */
struct peer_queue {
    uint32_t handle_id;
    int fd;
};

struct xenevtchn_handle {
    struct host_view *view;
    uint32_t handle;
    int fd;
    struct peer_queue peer; /* of the port that sent last */
};

static int fail(int failure)
{
    errno = failure;
    return -1;
}

static bool owns(const xenevtchn_handle *xce, evtchn_port_t port)
{
    const struct host *host = xce->view->host;

    return port_owned(host, port, xce->view->domid) && host->ports[port].handle == xce->handle;
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
    struct host_view *view = host_of_process();
    xenevtchn_handle *xce;
    int handle, failure, saved = errno;

    (void)logger;
    if (flags & ~(unsigned int)XENEVTCHN_NO_CLOEXEC) {
        errno = EINVAL;
        return NULL;
    }
    if (!view)
        return NULL;
    xce = calloc(1, sizeof(*xce));
    if (!xce)
        return NULL;
    xce->view = view;
    xce->peer.fd = -1;
    host_lock(view->host);
    handle = handle_create_locked(view, HANDLE_EVTCHN);
    if (handle >= 0) {
        xce->handle = (uint32_t)handle;
        xce->fd = queue_open(view, view->host->handles[handle].id, true);
        if (xce->fd < 0)
            view->host->handles[handle].kind = HANDLE_FREE;
    }
    failure = errno;
    host_unlock(view->host);
    if (handle < 0 || xce->fd < 0) {
        free(xce);
        errno = failure;
        return NULL;
    }
    if (flags & XENEVTCHN_NO_CLOEXEC)
        fcntl(xce->fd, F_SETFD, 0);
    errno = saved;
    return xce;
}

int xenevtchn_close(xenevtchn_handle *xce)
{
    struct host *host;
    int saved = errno;

    if (!xce)
        return 0;
    host = xce->view->host;
    host_lock(host);
    for (uint32_t port = PORT_FIRST; port < PORTS_MAX; port++)
        if (owns(xce, port))
            port_release_locked(host, port);
    queue_remove(xce->view, host->handles[xce->handle].id);
    host->handles[xce->handle].kind = HANDLE_FREE;
    host_unlock(host);
    close(xce->fd);
    if (xce->peer.fd >= 0)
        close(xce->peer.fd);
    free(xce);
    errno = saved;
    return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
    return xce->fd;
}

/* -1 when there is no peer or its queue is gone; port_raise_locked then looks for itself. */
static int peer_queue_locked(xenevtchn_handle *xce, evtchn_port_t port)
{
    const struct host *host = xce->view->host;
    const struct port *local = &host->ports[port];
    uint32_t id;

    if (local->state != PORT_INTERDOMAIN || host->ports[local->remote_port].orphan)
        return -1;
    id = host->handles[host->ports[local->remote_port].handle].id;
    if (xce->peer.fd >= 0 && xce->peer.handle_id == id)
        return xce->peer.fd;
    if (xce->peer.fd >= 0)
        close(xce->peer.fd);
    xce->peer.handle_id = id;
    xce->peer.fd = queue_open(xce->view, id, false);
    return xce->peer.fd;
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
    struct host *host = xce->view->host;
    int saved = errno;
    bool known;

    host_lock(host);
    known = owns(xce, port);
    if (known)
        port_send_locked(xce->view, port, peer_queue_locked(xce, port));
    host_unlock(host);
    errno = saved;
    return known ? 0 : fail(ENOTCONN);
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *xce, uint32_t domid)
{
    struct host *host = xce->view->host;
    int port;

    if (domid == xce->view->domid)
        return fail(EINVAL);
    /* The peer need not exist yet: Xen's EVTCHNOP_alloc_unbound does not look for it. */
    host_lock(host);
    port = port_create_locked(xce->view, xce->handle, domid);
    host_unlock(host);
    return port;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid,
                                                     evtchn_port_t remote_port)
{
    struct host *host = xce->view->host;
    int port;

    if (domid == xce->view->domid)
        return fail(EINVAL);
    host_lock(host);
    port = port_bind_locked(xce->view, xce->handle, domid, remote_port);
    host_unlock(host);
    return port;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
    struct host *host = xce->view->host;
    bool known;

    host_lock(host);
    known = owns(xce, port);
    if (known)
        port_release_locked(host, port);
    host_unlock(host);
    return known ? 0 : fail(ENOTCONN);
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
    uint32_t port;
    ssize_t got = read(xce->fd, &port, sizeof(port));

    if (got < 0)
        return -1;
    return got == sizeof(port) ? (int)port : fail(EIO);
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
    struct host *host = xce->view->host;
    int saved = errno;

    host_lock(host);
    /* As the driver: a port that this handle does not own is passed over in silence. */
    if (owns(xce, port))
        port_unmask_locked(xce->view, port, xce->fd);
    host_unlock(host);
    errno = saved;
    return 0;
}
