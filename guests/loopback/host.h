/*
 * One loopback "host": what Xen, its event channels and its grant tables are on a real machine,
 * as one shared file that every process of the host maps, plus one sparse file of pages.
 *
 *   <dir>/state      struct host: handles, ports, grants, mappings (all under one robust lock)
 *   <dir>/pages      page N is the page behind grant reference N
 *   <dir>/events/ID  the queue (a named pipe) of event channel handle ID
 *   <dir>/store/     xenstore, see store.h
 *   <dir>/guardian   socket of the guardian, which does for a dead process what the kernel does
 *
 * Every function that ends in _locked wants the lock to be held. A process may be killed at any
 * instruction, so each table entry is marked used after it is filled, whoever takes the lock of a
 * killed owner repairs what binds entries together, and the guardian releases by owner.
 */
#ifndef VCHAN_LOOPBACK_HOST_H
#define VCHAN_LOOPBACK_HOST_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define HOST_MAGIC 0x6f6f6c6e61686376ull /* "vchanloo" */
#define HOST_VERSION 1u
#define HOST_PAGE_BYTES 4096u

#define HANDLES_MAX 1024u
#define PORTS_MAX 4096u
#define GRANTS_MAX 65536u
#define MAPPINGS_MAX 65536u
/* libxenvchan takes reference 0 and port 0 for "none"; Xen reserves the first 8 references. */
#define GRANT_FIRST 8u
#define PORT_FIRST 1u
#define DOMAINS_MAX 64u

#define NO_OFFSET UINT32_MAX
#define NO_PORT UINT32_MAX

enum handle_kind { HANDLE_FREE = 0, HANDLE_EVTCHN, HANDLE_GNTSHR, HANDLE_GNTTAB };

/* An open handle of one of the three devices. */
struct handle {
    uint32_t kind;
    uint32_t id; /* never used twice: names the queue */
    int32_t pid;
    uint32_t domid;
};

enum port_state { PORT_FREE = 0, PORT_UNBOUND, PORT_INTERDOMAIN };

enum { PORT_MASKED = 1u, PORT_PENDING = 2u };

/*
 * An event channel port. MASKED: an entry was put into the owner's queue and not yet unmasked;
 * PENDING: raised again meanwhile. So one port has at most one entry in its queue.
 */
struct port {
    uint32_t state;
    uint32_t handle; /* index in handles: whose queue */
    uint32_t domid;  /* owner */
    uint32_t remote_domid;
    uint32_t remote_port;
    uint32_t bits;
    uint32_t holds;  /* unmap notifies that will send through it keep it open, as in Linux */
    uint32_t orphan; /* its handle let go of it: events for it are dropped */
};

/* What the kernel does when the page is unmapped: clear one byte, raise one event. */
struct unmap_notify {
    uint32_t offset; /* NO_OFFSET: no byte */
    uint32_t port;   /* local port to send through; NO_PORT: no event */
};

/* A granted page. It stays used while it is shared or mapped. */
struct grant {
    uint32_t used;
    uint32_t shared;
    uint32_t handle;
    uint32_t domid;
    uint32_t peer_domid;
    uint32_t writable;
    uint32_t mappings;
    struct unmap_notify notify;
};

/* One page mapped by a peer. */
struct mapping {
    uint32_t used;
    uint32_t handle;
    uint32_t grant;
    struct unmap_notify notify;
};

struct host {
    uint64_t magic;
    uint32_t version;
    uint32_t next_handle_id;
    pthread_mutex_t lock;
    uint64_t store_generation;
    uint32_t grants_top;   /* all used entries lie below */
    uint32_t mappings_top; /* as above */
    uint8_t domains[DOMAINS_MAX]; /* 1: exists */
    struct handle handles[HANDLES_MAX];
    struct port ports[PORTS_MAX];
    struct grant grants[GRANTS_MAX];
    struct mapping mappings[MAPPINGS_MAX];
};

/* This process's view of its host. */
struct host_view {
    struct host *host;
    int dir_fd;
    int pages_fd;
    uint32_t domid;
};

/* Make the files of a host in directory dir_fd. -1 with errno. */
int host_create(int dir_fd);

/* Map the host in the directory dir_fd (kept open by the view). -1 with errno. */
int host_map(struct host_view *view, int dir_fd, uint32_t domid);

/*
 * The view of this process, from VCHAN_LOOPBACK_DIR and VCHAN_LOOPBACK_DOMID, made at the first
 * call, which also registers the process with the guardian. NULL with errno: ENOENT when the
 * variables do not name a host, ECONNREFUSED when its guardian is gone, ESRCH for a domain that
 * the host does not have.
 */
struct host_view *host_of_process(void);

void host_lock(struct host *host);
void host_unlock(struct host *host);

/* Index of a new handle of this process, or -1 with errno ENFILE. */
int handle_create_locked(struct host_view *view, enum handle_kind kind);

bool domain_exists(const struct host *host, uint32_t domid);

#endif
