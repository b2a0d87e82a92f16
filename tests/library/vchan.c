/*
 * A libxenvchan of the project's own, for tests: the same interface, page and order of accesses as
 * Xen's, written anew, so that any compiler can make of it what it likes, and so that it can be
 * broken in known ways:
 *
 *   -DPLAIN_BITS   notify bits are changed without the lock prefix
 */
#include <errno.h>
#include <libxenvchan.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xenstore.h>

#define PAGE_BYTES 4096
#define RINGS_IN_PAGE_AT 1024
#define ORDER_MAX 20
#define KEY_BYTES 256

/* Nothing moves over it in the compiler; x86 keeps loads with loads and stores with stores. */
#define ORDERED() __asm__ __volatile__("" ::: "memory")

/* ---- the page ---- */

static size_t ring_bytes(const struct libxenvchan_ring *ring)
{
    return (size_t)1 << ring->order;
}

/* Indices that make no sense are those of nobody: nothing to read, no room. */
static size_t readable(const struct libxenvchan *c)
{
    uint32_t filled = c->read.shr->prod - c->read.shr->cons;

    ORDERED();
    return filled > ring_bytes(&c->read) ? 0 : filled;
}

static size_t writable(const struct libxenvchan *c)
{
    size_t room = ring_bytes(&c->write) - (uint32_t)(c->write.shr->prod - c->write.shr->cons);

    ORDERED();
    return room > ring_bytes(&c->write) ? 0 : room;
}

/* What the peer looks at before it raises an event, and what this side looks at. */
static uint8_t *asked_of_peer(const struct libxenvchan *c)
{
    return c->is_server ? &c->ring->cli_notify : &c->ring->srv_notify;
}

static uint8_t *asked_by_peer(const struct libxenvchan *c)
{
    return c->is_server ? &c->ring->srv_notify : &c->ring->cli_notify;
}

#ifdef PLAIN_BITS
/* The same instructions without the lock prefix: no fence, and another processor may come between. */
static void set_bit_of(uint8_t *byte, uint8_t bit)
{
    __asm__ __volatile__("orb %1, %0" : "+m"(*byte) : "r"(bit) : "cc", "memory");
}

static bool take_bit_of(uint8_t *byte, uint8_t bit)
{
    uint8_t seen = *(volatile uint8_t *)byte, before;

    do {
        before = seen;
        __asm__ __volatile__("cmpxchgb %2, %0"
                             : "+m"(*byte), "+a"(seen)
                             : "r"((uint8_t)(before & ~bit))
                             : "cc", "memory");
    } while (seen != before);
    return before & bit;
}
#else
static void set_bit_of(uint8_t *byte, uint8_t bit)
{
    __atomic_fetch_or(byte, bit, __ATOMIC_SEQ_CST);
}

static bool take_bit_of(uint8_t *byte, uint8_t bit)
{
    return __atomic_fetch_and(byte, (uint8_t)~bit, __ATOMIC_SEQ_CST) & bit;
}
#endif

static void ask_for_event(const struct libxenvchan *c, uint8_t bit)
{
    set_bit_of(asked_of_peer(c), bit);
    ORDERED();
}

static int tell_peer(const struct libxenvchan *c, uint8_t bit)
{
    ORDERED();
    if (!take_bit_of(asked_by_peer(c), bit))
        return 0;
    return xenevtchn_notify(c->event, c->event_port);
}

/* How much there is; if that is less than wanted, how much after the peer was asked to tell. */
static size_t look(const struct libxenvchan *c, size_t (*amount)(const struct libxenvchan *),
                   size_t wanted, uint8_t bit)
{
    size_t found = amount(c);

    if (found >= wanted)
        return found;
    ask_for_event(c, bit);
    return amount(c);
}

static bool peer_is_gone(const struct libxenvchan *c)
{
    return !libxenvchan_is_open((struct libxenvchan *)c);
}

int libxenvchan_is_open(struct libxenvchan *c)
{
    if (c->is_server)
        return c->server_persist ? 1 : c->ring->cli_live;
    return c->ring->srv_live;
}

int libxenvchan_wait(struct libxenvchan *c)
{
    int port = xenevtchn_pending(c->event);

    if (port == -1)
        return -1;
    xenevtchn_unmask(c->event, (evtchn_port_t)port);
    return 0;
}

int libxenvchan_fd_for_select(struct libxenvchan *c)
{
    return xenevtchn_fd(c->event);
}

int libxenvchan_data_ready(struct libxenvchan *c)
{
    ask_for_event(c, VCHAN_NOTIFY_WRITE);
    return (int)readable(c);
}

int libxenvchan_buffer_space(struct libxenvchan *c)
{
    ask_for_event(c, VCHAN_NOTIFY_READ);
    return (int)writable(c);
}

/* ---- moving bytes ---- */

static int put(struct libxenvchan *c, const char *data, size_t count)
{
    size_t at = c->write.shr->prod & (ring_bytes(&c->write) - 1);
    size_t first = ring_bytes(&c->write) - at;

    if (first > count)
        first = count;
    memcpy((char *)c->write.buffer + at, data, first);
    if (first < count)
        memcpy(c->write.buffer, data + first, count - first);
    ORDERED();
    c->write.shr->prod += (uint32_t)count;
    return tell_peer(c, VCHAN_NOTIFY_WRITE) ? -1 : (int)count;
}

static int take(struct libxenvchan *c, char *data, size_t count)
{
    size_t at = c->read.shr->cons & (ring_bytes(&c->read) - 1);
    size_t first = ring_bytes(&c->read) - at;

    if (first > count)
        first = count;
    ORDERED();
    memcpy(data, (char *)c->read.buffer + at, first);
    if (first < count)
        memcpy(data + first, c->read.buffer, count - first);
    ORDERED();
    c->read.shr->cons += (uint32_t)count;
    return tell_peer(c, VCHAN_NOTIFY_READ) ? -1 : (int)count;
}

static size_t less(size_t a, size_t b)
{
    return a < b ? a : b;
}

int libxenvchan_write(struct libxenvchan *c, const void *data, size_t size)
{
    size_t done = 0;

    if (peer_is_gone(c))
        return -1;
    if (!c->blocking) {
        size_t count = less(look(c, writable, size, VCHAN_NOTIFY_READ), size);

        return count ? put(c, data, count) : 0;
    }
    for (;;) {
        size_t count = less(look(c, writable, size - done, VCHAN_NOTIFY_READ), size - done);

        if (count)
            done += (size_t)put(c, (const char *)data + done, count);
        if (done == size)
            return (int)size;
        if (libxenvchan_wait(c) || peer_is_gone(c))
            return -1;
    }
}

int libxenvchan_send(struct libxenvchan *c, const void *data, size_t size)
{
    for (;;) {
        if (peer_is_gone(c))
            return -1;
        if (look(c, writable, size, VCHAN_NOTIFY_READ) >= size)
            return put(c, data, size);
        if (!c->blocking)
            return 0;
        if (size > ring_bytes(&c->write) || libxenvchan_wait(c))
            return -1;
    }
}

int libxenvchan_read(struct libxenvchan *c, void *data, size_t size)
{
    for (;;) {
        size_t found = look(c, readable, size, VCHAN_NOTIFY_WRITE);

        if (found)
            return take(c, data, less(found, size));
        if (peer_is_gone(c))
            return -1;
        if (!c->blocking)
            return 0;
        if (libxenvchan_wait(c))
            return -1;
    }
}

int libxenvchan_recv(struct libxenvchan *c, void *data, size_t size)
{
    for (;;) {
        if (look(c, readable, size, VCHAN_NOTIFY_WRITE) >= size)
            return take(c, data, size);
        if (peer_is_gone(c))
            return -1;
        if (!c->blocking)
            return 0;
        if (size > ring_bytes(&c->read) || libxenvchan_wait(c))
            return -1;
    }
}

/* ---- opening ---- */

static void point_into_page(struct libxenvchan *c)
{
    c->read.shr = c->is_server ? &c->ring->left : &c->ring->right;
    c->write.shr = c->is_server ? &c->ring->right : &c->ring->left;
}

static void *ring_in_page(const struct libxenvchan *c, int order)
{
    /* The one of 1 KiB behind the first quarter, that of 2 KiB in the second half. */
    return (char *)c->ring + (order == 10 ? RINGS_IN_PAGE_AT : 2 * RINGS_IN_PAGE_AT);
}

static int order_for(size_t bytes)
{
    int order = 12;

    while (order < ORDER_MAX && (size_t)1 << order < bytes)
        order++;
    return order;
}

static void choose_orders(struct libxenvchan *c, size_t left, size_t right)
{
    bool left_is_small = left <= 1024, right_is_small = right <= 1024;
    int left_order = order_for(left), right_order = order_for(right);

    if (left_is_small && right <= 2048) {
        left_order = 10;
        right_order = 11;
    } else if (right_is_small && left <= 2048) {
        left_order = 11;
        right_order = 10;
    } else if (left <= 2048) {
        left_order = 11;
    } else if (right <= 2048) {
        right_order = 11;
    }
    c->read.order = left_order;
    c->write.order = right_order;
}

/* Grants of both rings, those of the left one first. */
static bool share_ring(struct libxenvchan *c, struct libxenvchan_ring *ring, uint32_t domid,
                       uint32_t **grants)
{
    int pages = 1 << (ring->order - 12);

    if (ring->order < 12) {
        ring->buffer = ring_in_page(c, ring->order);
        return true;
    }
    ring->buffer = xengntshr_share_pages(c->gntshr, domid, pages, *grants, 1);
    *grants += pages;
    return ring->buffer;
}

static bool map_ring(struct libxenvchan *c, struct libxenvchan_ring *ring, uint32_t domid,
                     uint32_t **grants)
{
    int pages = 1 << (ring->order - 12);

    if (ring->order < 12) {
        ring->buffer = ring_in_page(c, ring->order);
        return true;
    }
    ring->buffer = xengnttab_map_domain_grant_refs(c->gnttab, (uint32_t)pages, domid, *grants,
                                                   PROT_READ | PROT_WRITE);
    *grants += pages;
    return ring->buffer;
}

static bool write_key(struct xs_handle *store, xs_transaction_t t, const char *folder,
                      const char *name, unsigned value, int domid)
{
    struct xs_permissions rights[2] = { { .perms = XS_PERM_NONE },
                                        { .id = (unsigned)domid, .perms = XS_PERM_READ } };
    char key[KEY_BYTES], text[16];

    rights[0].id = (unsigned)atoi(getenv("VCHAN_LOOPBACK_DOMID") ?: "0");
    snprintf(key, sizeof(key), "%s/%s", folder, name);
    snprintf(text, sizeof(text), "%u", value);
    return xs_write(store, t, key, text, (unsigned)strlen(text)) &&
           xs_set_permissions(store, t, key, rights, 2);
}

/* Both keys or none: a client that finds one of them finds the other one. */
static bool publish(const struct libxenvchan *c, int domid, const char *path, unsigned grant)
{
    struct xs_handle *store = xs_open(0);
    bool done = false;

    while (store && !done) {
        xs_transaction_t t = xs_transaction_start(store);
        bool written = write_key(store, t, path, "ring-ref", grant, domid) &&
                       write_key(store, t, path, "event-channel", c->event_port, domid);

        done = xs_transaction_end(store, t, !written) && written;
        if (!done && errno != EAGAIN)
            break;
    }
    if (store)
        xs_close(store);
    return done;
}

static bool read_key(struct xs_handle *store, const char *folder, const char *name, unsigned *value)
{
    char key[KEY_BYTES], *text;

    snprintf(key, sizeof(key), "%s/%s", folder, name);
    text = xs_read(store, XBT_NULL, key, NULL);
    if (text)
        *value = (unsigned)strtoul(text, NULL, 10);
    free(text);
    return text;
}

struct libxenvchan *libxenvchan_server_init(struct xentoollog_logger *logger, int domid,
                                            const char *path, size_t left, size_t right)
{
    struct libxenvchan *c = calloc(1, sizeof(*c));
    uint32_t grant, *grants;
    int port;

    if (!c)
        return NULL;
    c->is_server = 1;
    c->blocking = 1;
    choose_orders(c, left, right);
    c->event = xenevtchn_open(logger, 0);
    c->gntshr = xengntshr_open(logger, 0);
    if (!c->event || !c->gntshr)
        goto fail;
    port = xenevtchn_bind_unbound_port(c->event, (uint32_t)domid);
    if (port < 0 || xenevtchn_unmask(c->event, (evtchn_port_t)port))
        goto fail;
    c->event_port = (uint32_t)port;
    c->ring = xengntshr_share_page_notify(c->gntshr, (uint32_t)domid, &grant, 1,
                                          offsetof(struct vchan_interface, srv_live),
                                          c->event_port);
    if (!c->ring)
        goto fail;
    memset(c->ring, 0, PAGE_BYTES);
    point_into_page(c);
    c->ring->left_order = (uint16_t)c->read.order;
    c->ring->right_order = (uint16_t)c->write.order;
    c->ring->cli_live = 2;
    c->ring->srv_live = 1;
    c->ring->cli_notify = VCHAN_NOTIFY_WRITE;
    grants = c->ring->grants;
    if (!share_ring(c, &c->read, (uint32_t)domid, &grants) ||
        !share_ring(c, &c->write, (uint32_t)domid, &grants))
        goto fail;
    c->xs_path = strdup(path);
    if (!c->xs_path || !publish(c, domid, path, grant))
        goto fail;
    return c;
fail:
    libxenvchan_close(c);
    return NULL;
}

struct libxenvchan *libxenvchan_client_init(struct xentoollog_logger *logger, int domid,
                                            const char *path)
{
    struct libxenvchan *c = calloc(1, sizeof(*c));
    struct xs_handle *store = xs_open(0);
    unsigned grant = 0, remote_port = 0;
    uint32_t *grants;
    int port;

    if (!c || !store || !read_key(store, path, "ring-ref", &grant) ||
        !read_key(store, path, "event-channel", &remote_port))
        goto fail;
    c->blocking = 1;
    c->event = xenevtchn_open(logger, 0);
    c->gnttab = xengnttab_open(logger, 0);
    if (!c->event || !c->gnttab)
        goto fail;
    port = xenevtchn_bind_interdomain(c->event, (uint32_t)domid, remote_port);
    if (port < 0 || xenevtchn_unmask(c->event, (evtchn_port_t)port))
        goto fail;
    c->event_port = (uint32_t)port;
    c->ring = xengnttab_map_grant_ref_notify(c->gnttab, (uint32_t)domid, grant,
                                             PROT_READ | PROT_WRITE,
                                             offsetof(struct vchan_interface, cli_live),
                                             c->event_port);
    if (!c->ring)
        goto fail;
    point_into_page(c);
    c->write.order = c->ring->left_order;
    c->read.order = c->ring->right_order;
    if (c->write.order < 10 || c->write.order > ORDER_MAX || c->read.order < 10 ||
        c->read.order > ORDER_MAX || (c->write.order == c->read.order && c->write.order < 12))
        goto fail;
    grants = c->ring->grants;
    if (!map_ring(c, &c->write, (uint32_t)domid, &grants) ||
        !map_ring(c, &c->read, (uint32_t)domid, &grants))
        goto fail;
    c->ring->cli_live = 1;
    c->ring->srv_notify = VCHAN_NOTIFY_WRITE;
    ORDERED();
    xenevtchn_notify(c->event, c->event_port);
    xs_close(store);
    return c;
fail:
    if (store)
        xs_close(store);
    libxenvchan_close(c);
    return NULL;
}

/* ---- closing ---- */

static void give_back_ring(struct libxenvchan *c, struct libxenvchan_ring *ring)
{
    uint32_t pages = ring->order < 12 ? 0 : 1u << (ring->order - 12);

    if (!ring->buffer || !pages)
        return;
    if (c->is_server)
        xengntshr_unshare(c->gntshr, ring->buffer, pages);
    else
        xengnttab_unmap(c->gnttab, ring->buffer, pages);
}

static void give_back_page(struct libxenvchan *c)
{
    if (!c->ring)
        return;
    if (c->is_server) {
        c->ring->srv_live = 0;
        xengntshr_unshare(c->gntshr, c->ring, 1);
    } else {
        c->ring->cli_live = 0;
        xengnttab_unmap(c->gnttab, c->ring, 1);
    }
}

static void take_back_keys(struct libxenvchan *c)
{
    struct xs_handle *store = c->xs_path ? xs_open(0) : NULL;
    const char *const names[] = { "ring-ref", "event-channel" };

    for (unsigned i = 0; store && i < 2; i++) {
        char key[KEY_BYTES];

        snprintf(key, sizeof(key), "%s/%s", c->xs_path, names[i]);
        xs_rm(store, XBT_NULL, key);
    }
    if (store)
        xs_close(store);
    free(c->xs_path);
}

void libxenvchan_close(struct libxenvchan *c)
{
    if (!c)
        return;
    take_back_keys(c);
    give_back_ring(c, &c->read);
    give_back_ring(c, &c->write);
    give_back_page(c);
    if (c->event) {
        if (c->ring)
            xenevtchn_notify(c->event, c->event_port);
        xenevtchn_close(c->event);
    }
    if (c->is_server && c->gntshr)
        xengntshr_close(c->gntshr);
    if (!c->is_server && c->gnttab)
        xengnttab_close(c->gnttab);
    free(c);
}
