#include "flight.h"

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "blocks.h"
#include "channels.h"
#include "clock.h"
#include "log.h"

#define STAT_BYTES 512
#define CLI_LIVE 20
#define NOT_CONNECTED 2

_Atomic bool vt_flight_is_frozen;

/* What the keeper has seen since the last record came. */
static struct {
    uint64_t records;
    uint64_t since; /* milliseconds; 0: not looked yet */
    bool asleep;
    bool has_page;
    uint8_t page[VT_PAGE_HEAD_BYTES];
} settling;

void vt_flight_begin(void)
{
    memset(&settling, 0, sizeof(settling));
    atomic_store(&vt_flight_is_frozen, false);
}

void vt_flight_freeze(enum vt_frozen_by by)
{
    struct vt_header *header = vt_blocks_header();
    uint32_t none = 0;

    if (!header || !header->ring_blocks)
        return;
    atomic_store(&vt_flight_is_frozen, true);
    if (atomic_compare_exchange_strong(&header->frozen, &none, by))
        header->frozen_tsc = vt_stamp_after();
}

/* ---- the settle time ---- */

static uint64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool is_asleep(uint32_t tid)
{
    char path[64], text[STAT_BYTES + 1], *name_end;
    ssize_t count;
    int fd;

    snprintf(path, sizeof(path), "/proc/self/task/%u/stat", tid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true; /* It has ended. */
    count = read(fd, text, STAT_BYTES);
    close(fd);
    text[count > 0 ? count : 0] = 0;
    name_end = strrchr(text, ')');
    return name_end && (name_end[2] == 'S' || name_end[2] == 'D');
}

static bool all_asleep(void)
{
    for (uint32_t i = 0; i < vt_log_threads(); i++)
        if (!is_asleep(vt_log_thread(i)->tid))
            return false;
    return true;
}

/* A server that nobody has come to yet may wait for as long as it likes. */
static bool is_connected(const struct vt_channel *channel)
{
    uint8_t head[VT_PAGE_HEAD_BYTES];

    return vt_channel_copy_head(channel, head) && head[CLI_LIVE] != NOT_CONNECTED;
}

/* Channels of this recording that both ends have come to; the first one, if there is any. */
static unsigned open_channels(const struct vt_channel **first)
{
    unsigned count = 0;

    for (unsigned place = 0; place < VT_CHANNELS_MAX; place++) {
        const struct vt_channel *channel = vt_channel_at(place);

        if (!channel || channel->session != vt_log_session() || channel->inherited ||
            !is_connected(channel))
            continue;
        if (!count++)
            *first = channel;
    }
    return count;
}

static void look_first(const struct vt_channel *channel)
{
    settling.asleep = all_asleep();
    settling.has_page = vt_channel_copy_head(channel, settling.page);
}

static void look_last(const struct vt_channel *channel, unsigned channels)
{
    struct vt_header *header = vt_blocks_header();
    struct pollfd event = { .fd = channel->event_fd, .events = POLLIN };
    uint32_t look = VT_LOOK_TAKEN;

    /* One that was being written when it was frozen: then it did not stand still. */
    if (vt_log_records() != settling.records)
        return;
    if (settling.asleep && all_asleep())
        look |= VT_LOOK_ASLEEP;
    if (vt_channel_copy_head(channel, header->page) && settling.has_page &&
        !memcmp(header->page, settling.page, sizeof(settling.page)))
        look |= VT_LOOK_SAME_PAGE;
    if (event.fd >= 0 && poll(&event, 1, 0) > 0)
        look |= VT_LOOK_READABLE;
    if (channels == 1)
        look |= VT_LOOK_ALONE;
    for (uint32_t i = 0; i < vt_log_threads() && !header->in_call; i++)
        header->in_call = vt_log_thread(i)->call;
    header->look = look;
}

/* No record came for the settle time, while a channel was open. */
static void watch_settling(uint32_t milliseconds)
{
    const struct vt_channel *channel = NULL;
    unsigned channels = open_channels(&channel);
    uint64_t records = vt_log_records(), passed;

    if (!channels || records != settling.records || !settling.since) {
        settling.records = records;
        settling.since = channels ? now_milliseconds() : 0;
        if (channels)
            look_first(channel);
        return;
    }
    passed = now_milliseconds() - settling.since;
    /* Behind its last record a thread takes a moment until it sleeps. */
    if (!settling.asleep && passed < milliseconds / 2)
        look_first(channel);
    if (passed < milliseconds)
        return;
    vt_flight_freeze(VT_FROZEN_BY_SETTLING);
    look_last(channel, channels);
}

void vt_flight_watch(void)
{
    struct vt_header *header = vt_blocks_header();

    if (atomic_load(&header->frozen))
        return;
    if (atomic_load(&header->request))
        vt_flight_freeze(VT_FROZEN_ON_REQUEST);
    else if (header->settle_milliseconds)
        watch_settling(header->settle_milliseconds);
}
