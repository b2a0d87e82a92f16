/*
 * The guardian of a loopback host: makes its files, and does for a process that dies, however it
 * dies, what the kernel does: clears the live bytes, raises the events, closes ports and grants.
 *
 *   guardian DIR      prints "ready", ends when its standard input is closed
 *
 * Requests on the socket DIR/guardian, one line each, answered by one line:
 *   R        register the sender's process, whose id the kernel tells       "+"
 *   D DOMID  the host has a domain DOMID from now on                        "+"
 *   C        counts, after all deaths so far were dealt with  "+ grants=N ports=N keys=N handles=N"
 * A request that fails is answered by "-" and the error's text.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "grants.h"
#include "ports.h"
#include "transaction.h"

#define PROCESSES_MAX 512u
#define CONNECTIONS_MAX 64u

struct watched {
    int pidfd;
    pid_t pid;
};

struct guardian {
    struct host_view view;
    int listener;
    struct watched processes[PROCESSES_MAX];
    uint32_t process_count;
    int connections[CONNECTIONS_MAX];
    uint32_t connection_count;
};

/* ---- what the kernel does for a dead process ---- */

static bool handle_of(const struct host *host, uint32_t handle, pid_t pid)
{
    return host->handles[handle].kind != HANDLE_FREE && host->handles[handle].pid == pid;
}

/*
 * Live bytes and events of all its handles first: an unmap notify holds the port that it sends
 * through, so the kernel raises the event whichever of the files it closes first.
 */
static void grants_bury_locked(struct guardian *guardian, pid_t pid)
{
    struct host *host = guardian->view.host;

    for (uint32_t ref = GRANT_FIRST; ref < host->grants_top; ref++)
        if (host->grants[ref].used && host->grants[ref].shared &&
            handle_of(host, host->grants[ref].handle, pid))
            grant_unshare_locked(&guardian->view, ref);
    for (uint32_t slot = 0; slot < host->mappings_top; slot++)
        if (host->mappings[slot].used && handle_of(host, host->mappings[slot].handle, pid))
            grant_unmap_locked(&guardian->view, slot);
}

static void process_bury(struct guardian *guardian, pid_t pid)
{
    struct host *host = guardian->view.host;

    host_lock(host);
    grants_bury_locked(guardian, pid);
    for (uint32_t port = PORT_FIRST; port < PORTS_MAX; port++)
        if (host->ports[port].state != PORT_FREE && !host->ports[port].orphan &&
            handle_of(host, host->ports[port].handle, pid))
            port_release_locked(host, port);
    for (uint32_t i = 0; i < HANDLES_MAX; i++) {
        if (!handle_of(host, i, pid))
            continue;
        if (host->handles[i].kind == HANDLE_EVTCHN)
            queue_remove(&guardian->view, host->handles[i].id);
        host->handles[i].kind = HANDLE_FREE;
    }
    host_unlock(host);
}

/* ---- requests ---- */

static int process_watch(struct guardian *guardian, int connection)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    struct watched *watched = &guardian->processes[guardian->process_count];

    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &bytes))
        return -1;
    for (uint32_t i = 0; i < guardian->process_count; i++)
        if (guardian->processes[i].pid == peer.pid)
            return 0; /* each of the three libraries registers */
    if (guardian->process_count == PROCESSES_MAX) {
        errno = ENFILE;
        return -1;
    }
    /* The sender waits for the answer, so it is alive and the id is still its own. */
    watched->pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    if (watched->pidfd < 0)
        return -1;
    watched->pid = peer.pid;
    guardian->process_count++;
    return 0;
}

static int node_make_locked(struct guardian *guardian, const char *path, const char *value,
                            struct xs_permissions *perms, uint32_t perms_count)
{
    struct transaction t = {0};
    int failed = transaction_write_locked(&guardian->view, &t, path, value,
                                          (uint32_t)strlen(value)) ||
                 transaction_set_perms_locked(&guardian->view, &t, path, perms, perms_count) ||
                 transaction_commit_locked(&guardian->view, &t);

    transaction_clear(&t);
    return failed ? -1 : 0;
}

/* The part of a domain's home that the toolstack (libxl, Xen 4.17) makes and vchan needs. */
static int home_make_locked(struct guardian *guardian, uint32_t domid)
{
    struct xs_permissions readable[2] = {{.id = 0, .perms = XS_PERM_NONE},
                                         {.id = domid, .perms = XS_PERM_READ}};
    struct xs_permissions own[1] = {{.id = domid, .perms = XS_PERM_NONE}};
    uint32_t readable_count = domid ? 2 : 1;
    char path[64], value[32];

    snprintf(path, sizeof(path), "/local/domain/%u", domid);
    if (node_make_locked(guardian, path, "", readable, readable_count))
        return -1;
    snprintf(path, sizeof(path), "/local/domain/%u/domid", domid);
    snprintf(value, sizeof(value), "%u", domid);
    if (node_make_locked(guardian, path, value, readable, readable_count))
        return -1;
    snprintf(path, sizeof(path), "/local/domain/%u/name", domid);
    snprintf(value, sizeof(value), "loopback%u", domid);
    if (node_make_locked(guardian, path, value, readable, readable_count))
        return -1;
    snprintf(path, sizeof(path), "/local/domain/%u/data", domid);
    return node_make_locked(guardian, path, "", own, 1);
}

static int domain_introduce(struct guardian *guardian, uint32_t domid)
{
    struct host *host = guardian->view.host;
    int failed = 0;

    if (domid >= DOMAINS_MAX) {
        errno = EINVAL;
        return -1;
    }
    host_lock(host);
    if (!host->domains[domid]) {
        failed = home_make_locked(guardian, domid);
        if (!failed)
            host->domains[domid] = 1;
    }
    host_unlock(host);
    return failed;
}

struct key_walk {
    struct guardian *guardian;
    const char *path;
    unsigned long keys;
};

static void keys_add(void *context, const char *name)
{
    struct key_walk *walk = context;
    struct key_walk below = {walk->guardian, NULL, 0};
    char path[NODE_PATH_BYTES_MAX];
    struct node node;

    if (path_join(walk->path, name, path))
        return;
    below.path = path;
    if (!node_read_locked(&walk->guardian->view, path, &node) && node.value_bytes)
        walk->keys++;
    node_children_locked(&walk->guardian->view, path, keys_add, &below);
    walk->keys += below.keys;
}

/* Nodes that hold a value, without the two that each domain has from the start. */
static unsigned long keys_count_locked(struct guardian *guardian)
{
    struct key_walk walk = {guardian, "/", 0};

    node_children_locked(&guardian->view, "/", keys_add, &walk);
    for (uint32_t domid = 0; domid < DOMAINS_MAX; domid++)
        if (guardian->view.host->domains[domid])
            walk.keys -= 2;
    return walk.keys;
}

static void counts_tell(struct guardian *guardian, char *answer, size_t answer_bytes)
{
    const struct host *host = guardian->view.host;
    unsigned long grants = 0, ports = 0, handles = 0, keys;

    host_lock(guardian->view.host);
    for (uint32_t i = GRANT_FIRST; i < host->grants_top; i++)
        grants += host->grants[i].used;
    for (uint32_t i = PORT_FIRST; i < PORTS_MAX; i++)
        ports += host->ports[i].state != PORT_FREE;
    for (uint32_t i = 0; i < HANDLES_MAX; i++)
        handles += host->handles[i].kind != HANDLE_FREE;
    keys = keys_count_locked(guardian);
    host_unlock(guardian->view.host);
    snprintf(answer, answer_bytes, "+ grants=%lu ports=%lu keys=%lu handles=%lu\n", grants, ports,
             keys, handles);
}

static void deaths_take(struct guardian *guardian)
{
    for (uint32_t i = guardian->process_count; i-- > 0;) {
        struct watched *watched = &guardian->processes[i];
        struct pollfd death = {.fd = watched->pidfd, .events = POLLIN};

        if (poll(&death, 1, 0) != 1)
            continue;
        process_bury(guardian, watched->pid);
        close(watched->pidfd);
        *watched = guardian->processes[--guardian->process_count];
    }
}

static void request_answer(struct guardian *guardian, int connection, const char *request)
{
    char answer[128] = "+\n";
    unsigned int domid;
    int failed = 0;

    if (!strcmp(request, "R\n")) {
        failed = process_watch(guardian, connection);
    } else if (sscanf(request, "D %u\n", &domid) == 1) {
        failed = domain_introduce(guardian, domid);
    } else if (!strcmp(request, "C\n")) {
        deaths_take(guardian);
        counts_tell(guardian, answer, sizeof(answer));
    } else {
        errno = EINVAL;
        failed = -1;
    }
    if (failed)
        snprintf(answer, sizeof(answer), "- %s\n", strerror(errno));
    send(connection, answer, strlen(answer), MSG_NOSIGNAL);
}

/* One request a connection: whoever sends half a line is not waited for. */
static bool connection_serve(struct guardian *guardian, int connection)
{
    char request[64];
    ssize_t bytes = recv(connection, request, sizeof(request) - 1, MSG_DONTWAIT);

    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (bytes > 0) {
        request[bytes] = '\0';
        request_answer(guardian, connection, request);
    }
    return true;
}

/* ---- the loop ---- */

static void connections_serve(struct guardian *guardian, const struct pollfd *ready)
{
    for (uint32_t i = guardian->connection_count; i-- > 0;) {
        if (!ready[i].revents || !connection_serve(guardian, guardian->connections[i]))
            continue;
        close(guardian->connections[i]);
        guardian->connections[i] = guardian->connections[--guardian->connection_count];
    }
}

static void connection_take(struct guardian *guardian)
{
    int fd = accept4(guardian->listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    guardian->connections[guardian->connection_count++] = fd;
}

static int guard(struct guardian *guardian)
{
    struct pollfd fds[2 + CONNECTIONS_MAX + PROCESSES_MAX];

    for (;;) {
        uint32_t connections = guardian->connection_count;
        nfds_t count = 0;

        fds[count++] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
        /* A full table: the next ones wait in the listener's queue. */
        fds[count++] = (struct pollfd){
            .fd = connections < CONNECTIONS_MAX ? guardian->listener : -1, .events = POLLIN};
        for (uint32_t i = 0; i < connections; i++)
            fds[count++] = (struct pollfd){.fd = guardian->connections[i], .events = POLLIN};
        for (uint32_t i = 0; i < guardian->process_count; i++)
            fds[count++] =
                (struct pollfd){.fd = guardian->processes[i].pidfd, .events = POLLIN};
        if (poll(fds, count, -1) < 0) {
            if (errno == EINTR)
                continue;
            return 4;
        }
        deaths_take(guardian);
        connections_serve(guardian, fds + 2);
        if (fds[1].revents)
            connection_take(guardian);
        if (fds[0].revents)
            return 0;
    }
}

static int listener_open(int dir_fd)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    snprintf(name.sun_path, sizeof(name.sun_path), "/proc/self/fd/%d/guardian", dir_fd);
    if (bind(fd, (struct sockaddr *)&name, sizeof(name)) || listen(fd, 64)) {
        close(fd);
        return -1;
    }
    return fd;
}

int main(int argc, char **argv)
{
    static struct guardian guardian;
    int dir_fd;

    if (argc != 2) {
        fprintf(stderr, "usage: guardian DIR\n");
        return 2;
    }
    signal(SIGINT, SIG_IGN); /* the terminal's: the processes that it guards end first */
    dir_fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0 || host_create(dir_fd) || host_map(&guardian.view, dir_fd, 0) ||
        store_create(&guardian.view) || domain_introduce(&guardian, 0)) {
        fprintf(stderr, "guardian: cannot make a host in %s: %s\n", argv[1], strerror(errno));
        return 4;
    }
    guardian.listener = listener_open(dir_fd);
    if (guardian.listener < 0) {
        fprintf(stderr, "guardian: cannot listen in %s: %s\n", argv[1], strerror(errno));
        return 4;
    }
    if (puts("ready") < 0 || fflush(stdout))
        return 4;
    return guard(&guardian);
}
