/*
 * Stands in the global offset tables: in libxenvchan's for what it calls of Xen's libraries and
 * for memcpy, in every other object's for what that calls of libxenvchan and of libxenevtchn.
 * A GOT serves objects that came by dlopen as well as linked ones, and needs no environment.
 *
 * The page that libxenvchan gets is a decoy; what it hands back with decoy addresses in it (grant
 * references, the page to unshare) is translated here.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <libxenvchan.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#include "core.h"

static struct planned_fault planned[FAULTS_MAX];
static unsigned planned_count;

int interpose_plan_fault(const struct planned_fault *fault)
{
    if (planned_count == FAULTS_MAX)
        return -ENOSPC;
    planned[planned_count++] = *fault;
    return 0;
}

/* The real functions, found by name in the library that has them. */
#define REAL(result, name, ...) static result (*real_##name)(__VA_ARGS__)
REAL(xenevtchn_handle *, xenevtchn_open, struct xentoollog_logger *, unsigned);
REAL(int, xenevtchn_close, xenevtchn_handle *);
REAL(int, xenevtchn_notify, xenevtchn_handle *, evtchn_port_t);
REAL(xenevtchn_port_or_error_t, xenevtchn_pending, xenevtchn_handle *);
REAL(int, xenevtchn_unmask, xenevtchn_handle *, evtchn_port_t);
REAL(xenevtchn_port_or_error_t, xenevtchn_bind_unbound_port, xenevtchn_handle *, uint32_t);
REAL(xenevtchn_port_or_error_t, xenevtchn_bind_interdomain, xenevtchn_handle *, uint32_t,
     evtchn_port_t);
REAL(int, xenevtchn_unbind, xenevtchn_handle *, evtchn_port_t);
REAL(void *, xengntshr_share_page_notify, xengntshr_handle *, uint32_t, uint32_t *, int, uint32_t,
     evtchn_port_t);
REAL(void *, xengntshr_share_pages, xengntshr_handle *, uint32_t, int, uint32_t *, int);
REAL(int, xengntshr_unshare, xengntshr_handle *, void *, uint32_t);
REAL(void *, xengnttab_map_grant_ref_notify, xengnttab_handle *, uint32_t, uint32_t, int,
     uint32_t, evtchn_port_t);
REAL(void *, xengnttab_map_domain_grant_refs, xengnttab_handle *, uint32_t, uint32_t, uint32_t *,
     int);
REAL(int, xengnttab_unmap, xengnttab_handle *, void *, uint32_t);
REAL(struct libxenvchan *, libxenvchan_server_init, struct xentoollog_logger *, int, const char *,
     size_t, size_t);
REAL(struct libxenvchan *, libxenvchan_client_init, struct xentoollog_logger *, int,
     const char *);
REAL(int, libxenvchan_read, struct libxenvchan *, void *, size_t);
REAL(int, libxenvchan_write, struct libxenvchan *, const void *, size_t);
REAL(int, libxenvchan_recv, struct libxenvchan *, void *, size_t);
REAL(int, libxenvchan_send, struct libxenvchan *, const void *, size_t);
REAL(int, libxenvchan_wait, struct libxenvchan *);
REAL(void, libxenvchan_close, struct libxenvchan *);
REAL(int, libxenvchan_is_open, struct libxenvchan *);
REAL(int, libxenvchan_data_ready, struct libxenvchan *);
REAL(int, libxenvchan_buffer_space, struct libxenvchan *);
#undef REAL

/* ---- event channel ---------------------------------------------------------------------- */

static struct channel *channel_of_handle(const void *handle)
{
    return channel_of_event(handle);
}

static uint16_t origin(void) { return this_thread()->call ? 0 : VT_FLAG_BY_APPLICATION; }

static xenevtchn_handle *on_evtchn_open(struct xentoollog_logger *logger, unsigned flags)
{
    xenevtchn_handle *handle = real_xenevtchn_open(logger, flags);
    struct channel *channel = this_thread()->initing;

    if (handle && channel)
        channel->event = handle;
    return handle;
}

static int on_evtchn_close(xenevtchn_handle *handle)
{
    struct channel *channel = channel_of_handle(handle);

    channel_lock();
    if (channel)
        channel->event = NULL;
    channel_unlock();
    int result = real_xenevtchn_close(handle);
    if (channel)
        log_event(VT_EVTCHN_CLOSE, channel, 0, (uint64_t)(int64_t)result, origin());
    return result;
}

/* Which planned fault drops this notify, -1 for none; all that match count it. */
static int falls_to_a_fault(uint8_t cleared_bits)
{
    int drop = -1;

    for (unsigned i = 0; i < planned_count; i++) {
        if (planned[i].bit && !(planned[i].bit & cleared_bits))
            continue;
        if (++planned[i].seen == planned[i].nth)
            drop = (int)i;
    }
    return drop;
}

static int on_evtchn_notify(xenevtchn_handle *handle, evtchn_port_t port)
{
    struct channel *channel = channel_of_handle(handle);
    struct thread *thread = this_thread();

    if (!channel)
        return real_xenevtchn_notify(handle, port);
    uint8_t cleared = thread->cleared_bits;
    thread->cleared_bits = 0;
    int fault = falls_to_a_fault(cleared);
    if (fault >= 0) {
        log_event(VT_FAULT, channel, (uint64_t)fault, VT_FAULT_DROP_NOTIFY, 0);
        log_event(VT_NOTIFY, channel, port, 0, origin() | VT_FLAG_FAULT_INJECTED);
        return 0;
    }
    int result = real_xenevtchn_notify(handle, port);
    log_event(VT_NOTIFY, channel, port, (uint64_t)(int64_t)result, origin());
    return result;
}

static xenevtchn_port_or_error_t on_evtchn_pending(xenevtchn_handle *handle)
{
    struct channel *channel = channel_of_handle(handle);

    if (!channel)
        return real_xenevtchn_pending(handle);
    log_event(VT_PENDING_ENTER, channel, 0, 0, origin());
    xenevtchn_port_or_error_t port = real_xenevtchn_pending(handle);
    log_event(VT_PENDING_EXIT, channel, port < 0 ? (uint64_t)errno : 0, (uint64_t)(int64_t)port,
              origin());
    return port;
}

static int on_evtchn_unmask(xenevtchn_handle *handle, evtchn_port_t port)
{
    struct channel *channel = channel_of_handle(handle);
    int result = real_xenevtchn_unmask(handle, port);

    if (channel)
        log_event(VT_UNMASK, channel, port, (uint64_t)(int64_t)result, origin());
    return result;
}

static xenevtchn_port_or_error_t on_evtchn_bind_unbound(xenevtchn_handle *handle, uint32_t domid)
{
    xenevtchn_port_or_error_t port = real_xenevtchn_bind_unbound_port(handle, domid);
    struct channel *channel = channel_of_handle(handle);

    if (channel)
        log_event(VT_BIND_UNBOUND, channel, domid, (uint64_t)(int64_t)port, origin());
    return port;
}

static xenevtchn_port_or_error_t on_evtchn_bind_interdomain(xenevtchn_handle *handle,
                                                            uint32_t domid, evtchn_port_t remote)
{
    xenevtchn_port_or_error_t port = real_xenevtchn_bind_interdomain(handle, domid, remote);
    struct channel *channel = channel_of_handle(handle);

    if (channel)
        log_event(VT_BIND_INTERDOMAIN, channel, remote, (uint64_t)(int64_t)port, origin());
    return port;
}

static int on_evtchn_unbind(xenevtchn_handle *handle, evtchn_port_t port)
{
    struct channel *channel = channel_of_handle(handle);
    int result = real_xenevtchn_unbind(handle, port);

    if (channel)
        log_event(VT_UNBIND, channel, port, (uint64_t)(int64_t)result, origin());
    return result;
}

/* ---- grants ------------------------------------------------------------------------------ */

/* The live byte of this side: srv_live or cli_live. */
static uint16_t live_offset(const struct channel *channel) { return channel->is_server ? 21 : 20; }

static uint16_t offset_in_page(const void *address)
{
    const struct channel *channel = channel_of_decoy(address);

    return channel ? (uint16_t)((const uint8_t *)address - channel->decoy) : VT_NO_OFFSET;
}

static void *in_place_of(void *page, struct channel *channel, enum vt_kind kind, uint32_t ref)
{
    bool made = page && channel && channel_make_decoy(channel);

    if (made)
        channel->page = page;
    if (channel)
        log_detail(kind, channel, ref, page != NULL, 0, live_offset(channel), 0);
    return made ? channel->decoy : page;
}

static void *on_share_page_notify(xengntshr_handle *handle, uint32_t domid, uint32_t *ref,
                                  int writable, uint32_t notify_offset, evtchn_port_t port)
{
    void *page =
        real_xengntshr_share_page_notify(handle, domid, ref, writable, notify_offset, port);

    return in_place_of(page, this_thread()->initing, VT_SHARE_PAGE, page ? *ref : 0);
}

static void *on_map_grant_ref_notify(xengnttab_handle *handle, uint32_t domid, uint32_t ref,
                                     int prot, uint32_t notify_offset, evtchn_port_t port)
{
    void *page =
        real_xengnttab_map_grant_ref_notify(handle, domid, ref, prot, notify_offset, port);

    return in_place_of(page, this_thread()->initing, VT_MAP_PAGE, ref);
}

static void *on_share_pages(xengntshr_handle *handle, uint32_t domid, int count, uint32_t *refs,
                            int writable)
{
    struct channel *channel = this_thread()->initing;
    void *ring = real_xengntshr_share_pages(handle, domid, count, channel_real(refs), writable);

    if (channel)
        log_detail(VT_SHARE_RING, channel, *(uint32_t *)channel_real(refs),
                   ring ? (uint64_t)count : 0, 0, offset_in_page(refs), 0);
    return ring;
}

static void *on_map_domain_grant_refs(xengnttab_handle *handle, uint32_t count, uint32_t domid,
                                      uint32_t *refs, int prot)
{
    struct channel *channel = this_thread()->initing;
    void *ring =
        real_xengnttab_map_domain_grant_refs(handle, count, domid, channel_real(refs), prot);

    if (channel)
        log_detail(VT_MAP_RING, channel, *(uint32_t *)channel_real(refs), ring ? count : 0, 0,
                   offset_in_page(refs), 0);
    return ring;
}

/* The kernel clears the live byte and raises the event while it unmaps. */
static int give_back(enum vt_kind kind, void *handle, void *start, uint32_t count)
{
    struct channel *channel = channel_of_decoy(start);
    void *page = start;
    uint8_t live = 0;

    if (channel) {
        channel_lock();
        page = channel->page;
        live = channel->page[live_offset(channel)];
        channel->page = NULL;
        channel_unlock();
    }
    int result = kind == VT_UNSHARE_PAGE ? real_xengntshr_unshare(handle, page, count)
                                      : real_xengnttab_unmap(handle, page, count);
    if (channel)
        log_detail(kind, channel, live, (uint64_t)(int64_t)result, 0, live_offset(channel), 0);
    return result;
}

static int on_unshare(xengntshr_handle *handle, void *start, uint32_t count)
{
    return give_back(VT_UNSHARE_PAGE, handle, start, count);
}

static int on_unmap(xengnttab_handle *handle, void *start, uint32_t count)
{
    return give_back(VT_UNMAP_PAGE, handle, start, count);
}

static void log_copy(struct channel *channel, unsigned ring, size_t offset, size_t count)
{
    struct thread *thread = this_thread();
    struct vt_record *record = log_begin(thread);

    if (!record)
        return;
    record->t0 = record->t1 = __builtin_ia32_rdtsc();
    record->kind = VT_COPY;
    record->old = offset;
    record->new_ = count;
    record->op = ring == 0; /* out of the ring that this end reads */
    record->channel = channel_number(channel);
    log_commit(thread, record);
}

static void *on_memcpy(void *to, const void *from, size_t count)
{
    unsigned ring;
    size_t offset;
    struct channel *channel;

    memcpy(to, from, count);
    if ((channel = channel_of_ring(to, &ring, &offset)) ||
        (channel = channel_of_ring(from, &ring, &offset)))
        log_copy(channel, ring, offset, count);
    return to;
}

/* ---- calls of libxenvchan ---------------------------------------------------------------- */

static void enter(struct channel *channel, enum vt_call call, uint64_t argument)
{
    struct thread *thread = this_thread();

    thread->call = (uint8_t)call;
    thread->call_seq++;
    if (channel)
        thread->channel = channel_number(channel);
    log_event(VT_CALL_ENTER, channel, argument, 0, 0);
}

static void leave(struct channel *channel, int64_t result)
{
    int error = errno;

    log_event(VT_CALL_EXIT, channel, (uint64_t)error, (uint64_t)result, 0);
    this_thread()->call = VT_CALL_NONE;
    errno = error;
}

/* The rings inside the page were reckoned from the decoy: their copies must not fault. */
static void adopt(struct channel *channel, struct libxenvchan *ctrl)
{
    struct libxenvchan_ring *rings[2] = {&ctrl->read, &ctrl->write};

    channel->ctrl = ctrl;
    for (unsigned i = 0; i < 2; i++) {
        rings[i]->buffer = channel_real(rings[i]->buffer);
        channel->buffers[i] = rings[i]->buffer;
        channel->buffer_bytes[i] = (size_t)1 << rings[i]->order;
    }
    int left = channel->is_server ? 0 : 1;
    uint32_t left_order = (uint32_t)rings[left]->order, right_order = (uint32_t)rings[!left]->order;
    log_orders(left_order, right_order);
    log_detail(VT_ATTACH, channel, left_order | (uint64_t)right_order << 16, ctrl->event_port, 0,
               VT_NO_OFFSET, channel->is_server ? 0 : 1);
}

static struct channel *begin_init(enum vt_call call, bool is_server, uint64_t argument)
{
    struct channel *channel = channel_new();

    if (channel)
        channel->is_server = is_server;
    this_thread()->initing = channel;
    enter(channel, call, argument);
    return channel;
}

static void end_init(struct channel *channel, struct libxenvchan *ctrl)
{
    this_thread()->initing = NULL;
    if (channel && ctrl)
        adopt(channel, ctrl);
    leave(channel, ctrl ? 0 : -1);
    if (channel && !ctrl) {
        int saved = errno;
        channel_free(channel);
        errno = saved;
    }
}

static struct libxenvchan *on_server_init(struct xentoollog_logger *logger, int domid,
                                          const char *path, size_t read_min, size_t write_min)
{
    struct channel *channel = begin_init(VT_CALL_SERVER_INIT, true, read_min);
    struct libxenvchan *ctrl =
        real_libxenvchan_server_init(logger, domid, path, read_min, write_min);

    end_init(channel, ctrl);
    return ctrl;
}

static struct libxenvchan *on_client_init(struct xentoollog_logger *logger, int domid,
                                          const char *path)
{
    struct channel *channel = begin_init(VT_CALL_CLIENT_INIT, false, 0);
    struct libxenvchan *ctrl = real_libxenvchan_client_init(logger, domid, path);

    end_init(channel, ctrl);
    return ctrl;
}

#define ON_TRANSFER(name, call, constness)                                                     \
    static int on_##name(struct libxenvchan *ctrl, constness void *data, size_t size)          \
    {                                                                                          \
        struct channel *channel = channel_of_ctrl(ctrl);                                       \
        enter(channel, call, size);                                                            \
        int result = real_libxenvchan_##name(ctrl, data, size);                                \
        leave(channel, result);                                                                \
        return result;                                                                         \
    }
ON_TRANSFER(read, VT_CALL_READ, )
ON_TRANSFER(recv, VT_CALL_RECV, )
ON_TRANSFER(write, VT_CALL_WRITE, const)
ON_TRANSFER(send, VT_CALL_SEND, const)

#define ON_QUERY(name, call)                                                                   \
    static int on_##name(struct libxenvchan *ctrl)                                             \
    {                                                                                          \
        struct channel *channel = channel_of_ctrl(ctrl);                                       \
        enter(channel, call, 0);                                                               \
        int result = real_libxenvchan_##name(ctrl);                                            \
        leave(channel, result);                                                                \
        return result;                                                                         \
    }
ON_QUERY(wait, VT_CALL_WAIT)
ON_QUERY(is_open, VT_CALL_IS_OPEN)
ON_QUERY(data_ready, VT_CALL_DATA_READY)
ON_QUERY(buffer_space, VT_CALL_BUFFER_SPACE)

static void on_close(struct libxenvchan *ctrl)
{
    struct channel *channel = channel_of_ctrl(ctrl);

    enter(channel, VT_CALL_CLOSE, 0);
    real_libxenvchan_close(ctrl);
    leave(channel, 0);
    if (channel)
        channel_free(channel);
}

/* ---- the tables -------------------------------------------------------------------------- */

struct hook {
    const char *library, *name;
    void *here;
    void **real;
    bool in_vchan, elsewhere; /* whose GOT it goes into */
};

#define XEN(library, name, here, others)                                                       \
    {library, #name, (void *)here, (void **)&real_##name, true, others}
#define API(name, here)                                                                        \
    {"libxenvchan.so", "libxenvchan_" #name, (void *)here, (void **)&real_libxenvchan_##name,  \
     false, true}
#define EVTCHN "libxenevtchn.so"
#define GNTTAB "libxengnttab.so"

static const struct hook hooks[] = {
    XEN(EVTCHN, xenevtchn_open, on_evtchn_open, false),
    XEN(EVTCHN, xenevtchn_close, on_evtchn_close, true),
    XEN(EVTCHN, xenevtchn_notify, on_evtchn_notify, true),
    XEN(EVTCHN, xenevtchn_pending, on_evtchn_pending, true),
    XEN(EVTCHN, xenevtchn_unmask, on_evtchn_unmask, true),
    XEN(EVTCHN, xenevtchn_bind_unbound_port, on_evtchn_bind_unbound, false),
    XEN(EVTCHN, xenevtchn_bind_interdomain, on_evtchn_bind_interdomain, false),
    XEN(EVTCHN, xenevtchn_unbind, on_evtchn_unbind, true),
    XEN(GNTTAB, xengntshr_share_page_notify, on_share_page_notify, false),
    XEN(GNTTAB, xengntshr_share_pages, on_share_pages, false),
    XEN(GNTTAB, xengntshr_unshare, on_unshare, false),
    XEN(GNTTAB, xengnttab_map_grant_ref_notify, on_map_grant_ref_notify, false),
    XEN(GNTTAB, xengnttab_map_domain_grant_refs, on_map_domain_grant_refs, false),
    XEN(GNTTAB, xengnttab_unmap, on_unmap, false),
    {NULL, "memcpy", (void *)on_memcpy, NULL, true, false},
    API(server_init, on_server_init),
    API(client_init, on_client_init),
    API(read, on_read),
    API(write, on_write),
    API(recv, on_recv),
    API(send, on_send),
    API(wait, on_wait),
    API(close, on_close),
    API(is_open, on_is_open),
    API(data_ready, on_data_ready),
    API(buffer_space, on_buffer_space),
};
#define HOOKS (sizeof(hooks) / sizeof(*hooks))

#define SLOTS_MAX 512
static struct slot {
    void **place;
    void *original;
} slots[SLOTS_MAX];
static unsigned slots_used;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static bool is_library(const char *path, const char *library)
{
    return strncmp(base_name(path), library, strlen(library)) == 0;
}

static int find_loaded(struct dl_phdr_info *info, size_t size, void *data)
{
    const char **wanted = data;

    (void)size;
    if (!is_library(info->dlpi_name, wanted[0]))
        return 0;
    wanted[1] = info->dlpi_name;
    return 1;
}

/* dlsym(RTLD_NEXT) finds nothing in a library that came by dlopen: ask that very library. */
static void *symbol_in(const char *library, const char *name)
{
    const char *wanted[2] = {library, NULL};

    dl_iterate_phdr(find_loaded, wanted);
    if (!wanted[1])
        return NULL;
    void *handle = dlopen(wanted[1], RTLD_LAZY | RTLD_NOLOAD);
    if (!handle)
        return NULL;
    void *symbol = dlsym(handle, name);
    dlclose(handle);
    return symbol;
}

static int resolve(void)
{
    for (unsigned i = 0; i < HOOKS; i++) {
        if (!hooks[i].real)
            continue;
        *hooks[i].real = symbol_in(hooks[i].library, hooks[i].name);
        if (!*hooks[i].real)
            return -ENOENT;
    }
    return 0;
}

static void patch(void **place, void *target)
{
    uintptr_t page = (uintptr_t)place & ~(uintptr_t)(PAGE_BYTES - 1);

    if (*place == target || slots_used == SLOTS_MAX)
        return;
    /* After full RELRO the table is read-only; it stays writable then, as in any lazy binding. */
    if (mprotect((void *)page, PAGE_BYTES, PROT_READ | PROT_WRITE) < 0)
        return;
    slots[slots_used].place = place;
    slots[slots_used++].original = *place;
    __atomic_store_n(place, target, __ATOMIC_SEQ_CST);
}

struct object {
    uintptr_t base;
    const ElfW(Sym) *symbols;
    const char *strings;
    bool is_vchan;
};

static void patch_table(const struct object *object, const ElfW(Rela) *table, size_t bytes)
{
    for (size_t i = 0; table && i < bytes / sizeof(*table); i++) {
        unsigned type = ELF64_R_TYPE(table[i].r_info);

        if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT && type != R_X86_64_64)
            continue;
        const char *name =
            object->strings + object->symbols[ELF64_R_SYM(table[i].r_info)].st_name;
        for (unsigned h = 0; h < HOOKS; h++)
            if ((object->is_vchan ? hooks[h].in_vchan : hooks[h].elsewhere) &&
                strcmp(name, hooks[h].name) == 0)
                patch((void **)(object->base + table[i].r_offset), hooks[h].here);
    }
}

static uintptr_t here_base;

static int patch_object(struct dl_phdr_info *info, size_t size, void *data)
{
    struct object object = {.base = info->dlpi_addr,
                            .is_vchan = is_library(info->dlpi_name, "libxenvchan.so")};
    const ElfW(Rela) *jumps = NULL, *others = NULL;
    size_t jump_bytes = 0, other_bytes = 0;
    const ElfW(Dyn) *dynamic = NULL;

    (void)size;
    (void)data;
    if (info->dlpi_addr == here_base || is_library(info->dlpi_name, "linux-vdso") ||
        is_library(info->dlpi_name, EVTCHN) || is_library(info->dlpi_name, GNTTAB))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            dynamic = (void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
        void *pointer = (void *)dynamic->d_un.d_ptr;
        switch (dynamic->d_tag) {
        case DT_SYMTAB: object.symbols = pointer; break;
        case DT_STRTAB: object.strings = pointer; break;
        case DT_JMPREL: jumps = pointer; break;
        case DT_PLTRELSZ: jump_bytes = dynamic->d_un.d_val; break;
        case DT_RELA: others = pointer; break;
        case DT_RELASZ: other_bytes = dynamic->d_un.d_val; break;
        }
    }
    if (!object.symbols || !object.strings)
        return 0;
    patch_table(&object, jumps, jump_bytes);
    patch_table(&object, others, other_bytes);
    return 0;
}

int interpose_attach(void)
{
    Dl_info here;
    int error = resolve();

    if (error)
        return error;
    if (dladdr((void *)interpose_attach, &here))
        here_base = (uintptr_t)here.dli_fbase;
    if (dladdr((void *)real_libxenvchan_read, &here))
        fault_set_text_base((uintptr_t)here.dli_fbase);
    dl_iterate_phdr(patch_object, NULL);
    return slots_used ? 0 : -ENOENT;
}

void interpose_detach(void)
{
    while (slots_used) {
        struct slot *slot = &slots[--slots_used];
        __atomic_store_n(slot->place, slot->original, __ATOMIC_SEQ_CST);
    }
    planned_count = 0;
}
