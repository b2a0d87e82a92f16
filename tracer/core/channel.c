/* Which decoy page, control structure, event handle and ring belong to which channel. */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "core.h"

static struct channel channels[CHANNELS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void channel_lock(void) { pthread_mutex_lock(&lock); }
void channel_unlock(void) { pthread_mutex_unlock(&lock); }

struct channel *channel_new(void)
{
    struct channel *found = NULL;

    channel_lock();
    for (unsigned i = 0; i < CHANNELS_MAX && !found; i++)
        if (!channels[i].used)
            found = &channels[i];
    if (found) {
        memset(found, 0, sizeof(*found));
        found->used = true;
    }
    channel_unlock();
    return found;
}

void channel_free(struct channel *channel)
{
    uint8_t *decoy;

    channel_lock();
    decoy = channel->decoy;
    memset(channel, 0, sizeof(*channel));
    channel_unlock();
    if (decoy)
        munmap(decoy, PAGE_BYTES);
}

bool channel_make_decoy(struct channel *channel)
{
    void *decoy = mmap(NULL, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (decoy == MAP_FAILED)
        return false;
    channel->decoy = decoy;
    return true;
}

struct channel *channel_at(unsigned index)
{
    return index < CHANNELS_MAX && channels[index].used ? &channels[index] : NULL;
}

uint16_t channel_number(const struct channel *channel)
{
    return (uint16_t)(channel - channels);
}

struct channel *channel_of_ctrl(const void *ctrl)
{
    for (unsigned i = 0; ctrl && i < CHANNELS_MAX; i++)
        if (channels[i].used && channels[i].ctrl == ctrl)
            return &channels[i];
    return NULL;
}

struct channel *channel_of_event(const void *event)
{
    for (unsigned i = 0; event && i < CHANNELS_MAX; i++)
        if (channels[i].used && channels[i].event == event)
            return &channels[i];
    return NULL;
}

struct channel *channel_of_decoy(const void *address)
{
    const uint8_t *at = address;

    for (unsigned i = 0; i < CHANNELS_MAX; i++)
        if (channels[i].decoy && at >= channels[i].decoy && at < channels[i].decoy + PAGE_BYTES)
            return &channels[i];
    return NULL;
}

void *channel_real(const void *address)
{
    const struct channel *channel = channel_of_decoy(address);

    if (!channel)
        return (void *)address;
    return channel->page + ((const uint8_t *)address - channel->decoy);
}

struct channel *channel_of_ring(const void *address, unsigned *which, size_t *offset)
{
    const uint8_t *at = address;

    for (unsigned i = 0; i < CHANNELS_MAX; i++) {
        for (unsigned ring = 0; ring < 2; ring++) {
            const uint8_t *start = channels[i].buffers[ring];

            if (start && at >= start && at < start + channels[i].buffer_bytes[ring]) {
                *which = ring;
                *offset = (size_t)(at - start);
                return &channels[i];
            }
        }
    }
    return NULL;
}
