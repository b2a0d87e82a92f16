#define _GNU_SOURCE
#include "ports.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int queue_open(const struct host_view *view, uint32_t id, bool create)
{
    char name[32];

    snprintf(name, sizeof(name), "events/%u", id);
    if (create && mkfifoat(view->dir_fd, name, 0600))
        return -1;
    /*
     * Read and write in every process: the owner's read then waits instead of seeing the end of
     * file, and a writer whose owner was killed gets neither SIGPIPE nor an error.
     */
    return openat(view->dir_fd, name, O_RDWR | O_CLOEXEC);
}

void queue_remove(const struct host_view *view, uint32_t id)
{
    char name[32];

    snprintf(name, sizeof(name), "events/%u", id);
    unlinkat(view->dir_fd, name, 0);
}

int port_create_locked(struct host_view *view, uint32_t handle, uint32_t remote_domid)
{
    struct host *host = view->host;

    for (uint32_t i = PORT_FIRST; i < PORTS_MAX; i++) {
        struct port *port = &host->ports[i];

        if (port->state != PORT_FREE)
            continue;
        port->handle = handle;
        port->domid = view->domid;
        port->remote_domid = remote_domid;
        port->remote_port = 0;
        port->bits = 0;
        port->holds = 0;
        port->orphan = 0;
        __atomic_store_n(&port->state, PORT_UNBOUND, __ATOMIC_RELEASE);
        return (int)i;
    }
    errno = ENOSPC;
    return -1;
}

int port_bind_locked(struct host_view *view, uint32_t handle, uint32_t remote_domid,
                     uint32_t remote_port)
{
    struct host *host = view->host;
    struct port *remote;
    int local;

    if (!domain_exists(host, remote_domid)) {
        errno = ESRCH;
        return -1;
    }
    if (!port_owned(host, remote_port, remote_domid) ||
        host->ports[remote_port].state != PORT_UNBOUND ||
        host->ports[remote_port].remote_domid != view->domid) {
        errno = EINVAL;
        return -1;
    }
    local = port_create_locked(view, handle, remote_domid);
    if (local < 0)
        return -1;
    remote = &host->ports[remote_port];
    remote->remote_port = (uint32_t)local;
    remote->state = PORT_INTERDOMAIN;
    host->ports[local].remote_port = remote_port;
    host->ports[local].state = PORT_INTERDOMAIN;
    port_raise_locked(view, (uint32_t)local, -1);
    return local;
}

static void queue_put(const struct host_view *view, uint32_t port, int queue_fd)
{
    int fd = queue_fd;
    ssize_t done;

    if (fd < 0)
        fd = queue_open(view, view->host->handles[view->host->ports[port].handle].id, false);
    if (fd < 0)
        return; /* the owner is closing */
    do
        done = write(fd, &port, sizeof(port));
    while (done < 0 && errno == EINTR);
    if (fd != queue_fd)
        close(fd);
}

void port_raise_locked(const struct host_view *view, uint32_t port, int queue_fd)
{
    struct port *raised = &view->host->ports[port];

    if (raised->orphan)
        return;
    if (raised->bits & PORT_MASKED) {
        raised->bits |= PORT_PENDING;
        return;
    }
    /*
     * The entry goes first. Were the port masked first and this process killed before the write,
     * nobody would ever unmask it; this way round the worst is one spurious event.
     */
    queue_put(view, port, queue_fd);
    raised->bits |= PORT_MASKED;
}

void port_send_locked(const struct host_view *view, uint32_t port, int queue_fd)
{
    const struct port *local = &view->host->ports[port];

    if (local->state == PORT_INTERDOMAIN)
        port_raise_locked(view, local->remote_port, queue_fd);
}

void port_unmask_locked(const struct host_view *view, uint32_t port, int queue_fd)
{
    struct port *unmasked = &view->host->ports[port];

    if (!(unmasked->bits & PORT_MASKED))
        return;
    if (unmasked->bits & PORT_PENDING) {
        queue_put(view, port, queue_fd);
        unmasked->bits &= ~(uint32_t)PORT_PENDING;
    } else {
        unmasked->bits = 0;
    }
}

static void port_close_if_idle(struct host *host, uint32_t port)
{
    struct port *closed = &host->ports[port];

    if (!closed->orphan || closed->holds)
        return;
    if (closed->state == PORT_INTERDOMAIN) {
        struct port *remote = &host->ports[closed->remote_port];

        remote->state = PORT_UNBOUND;
        remote->remote_port = 0;
    }
    __atomic_store_n(&closed->state, PORT_FREE, __ATOMIC_RELEASE);
}

void port_release_locked(struct host *host, uint32_t port)
{
    host->ports[port].orphan = 1;
    port_close_if_idle(host, port);
}

void port_hold_locked(struct host *host, uint32_t port)
{
    host->ports[port].holds++;
}

void port_unhold_locked(struct host *host, uint32_t port)
{
    host->ports[port].holds--;
    port_close_if_idle(host, port);
}

bool port_owned(const struct host *host, uint32_t port, uint32_t domid)
{
    return port >= PORT_FIRST && port < PORTS_MAX && host->ports[port].state != PORT_FREE &&
           !host->ports[port].orphan && host->ports[port].domid == domid;
}
