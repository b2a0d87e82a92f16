#include "channels.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "quiet.h"

bool vt_calls_only;

static struct vt_channel channels[VT_CHANNELS_MAX];
static uint8_t *decoys; /* VT_CHANNELS_MAX pages without any access */
static unsigned next_place;
static uint16_t next_number;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int vt_channels_init(void)
{
    void *range;

    if (decoys)
        return 0;
    range = mmap(NULL, (size_t)VT_CHANNELS_MAX * VT_PAGE_BYTES, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED)
        return -errno;
    decoys = range;
    return 0;
}

void vt_channels_after_fork(void)
{
    pthread_mutex_init(&lock, NULL);
    for (unsigned place = 0; place < VT_CHANNELS_MAX; place++)
        channels[place].inherited = true;
}

void vt_channels_renumber(void)
{
    next_number = 0;
}

struct vt_channel *vt_channel_create(uint32_t session, bool is_server)
{
    struct vt_channel *channel = NULL;

    pthread_mutex_lock(&lock);
    /* Places are taken in turn: a stale pointer into a decoy then meets a free one for long. */
    for (unsigned tries = 0; tries < VT_CHANNELS_MAX && !channel; tries++) {
        unsigned place = next_place++ % VT_CHANNELS_MAX;

        if (channels[place].session)
            continue;
        channel = &channels[place];
        memset(channel, 0, sizeof(*channel));
        channel->number = next_number++;
        channel->is_server = is_server;
        channel->decoy = decoys + (size_t)place * VT_PAGE_BYTES;
        channel->event_fd = -1;
        channel->session = session;
    }
    pthread_mutex_unlock(&lock);
    return channel;
}

void vt_channel_destroy(struct vt_channel *channel)
{
    pthread_mutex_lock(&lock);
    memset(channel, 0, sizeof(*channel));
    pthread_mutex_unlock(&lock);
}

struct vt_channel *vt_channel_at(unsigned place)
{
    return channels[place].session ? &channels[place] : NULL;
}

/* Most processes have one channel, so the one that was found last is looked at first. */
static struct vt_channel *_Atomic recent = channels;

static struct vt_channel *keep_recent(struct vt_channel *channel)
{
    /* A fence has no place here: this is called between accesses. */
    atomic_store_explicit(&recent, channel, memory_order_relaxed);
    return channel;
}

struct vt_channel *vt_channel_of_ctrl(const struct libxenvchan *ctrl)
{
    struct vt_channel *channel = recent;

    if (!ctrl)
        return NULL;
    if (channel->session && channel->ctrl == ctrl)
        return channel;
    for (channel = channels; channel < channels + VT_CHANNELS_MAX; channel++)
        if (channel->session && channel->ctrl == ctrl)
            return keep_recent(channel);
    return NULL;
}

struct vt_channel *vt_channel_of_event(const xenevtchn_handle *event)
{
    struct vt_channel *channel = recent;

    if (!event)
        return NULL;
    if (channel->session && channel->event == event)
        return channel;
    for (channel = channels; channel < channels + VT_CHANNELS_MAX; channel++)
        if (channel->session && channel->event == event)
            return keep_recent(channel);
    return NULL;
}

bool vt_is_decoy(const void *address)
{
    return decoys && (uintptr_t)address - (uintptr_t)decoys <
                         (uintptr_t)VT_CHANNELS_MAX * VT_PAGE_BYTES;
}

uintptr_t vt_decoys_start(void)
{
    return (uintptr_t)decoys;
}

struct vt_channel *vt_channel_of_decoy(const void *address)
{
    if (!vt_is_decoy(address))
        return NULL;
    return vt_channel_at((unsigned)(((uintptr_t)address - (uintptr_t)decoys) / VT_PAGE_BYTES));
}

struct vt_channel *vt_channel_of_page(const void *page)
{
    for (struct vt_channel *channel = channels; page && channel < channels + VT_CHANNELS_MAX;
         channel++)
        if (channel->session && channel->page == page)
            return channel;
    return NULL;
}

void *vt_real_address(const void *address)
{
    const struct vt_channel *channel = vt_channel_of_decoy(address);
    uint8_t *page = channel ? channel->page : NULL;

    if (!page)
        return (void *)address;
    return page + ((const uint8_t *)address - channel->decoy);
}

void vt_channel_set_page(struct vt_channel *channel, uint8_t *page)
{
    pthread_mutex_lock(&lock);
    channel->page = page;
    pthread_mutex_unlock(&lock);
}

bool vt_channel_copy_head(const struct vt_channel *channel, uint8_t head[VT_PAGE_HEAD_BYTES])
{
    bool there;

    pthread_mutex_lock(&lock);
    there = channel->session && channel->page;
    if (there)
        memcpy(head, channel->page, VT_PAGE_HEAD_BYTES);
    pthread_mutex_unlock(&lock);
    return there;
}

int vt_channel_ring_of(const struct vt_channel *channel, const void *address, size_t *offset)
{
    for (int which = 0; which < 2; which++) {
        *offset = (size_t)((const uint8_t *)address - channel->rings[which].start);
        if (channel->rings[which].start && *offset < channel->rings[which].bytes)
            return which;
    }
    return -1;
}
