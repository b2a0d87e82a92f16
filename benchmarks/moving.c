/*
 * One end of what is measured: moving MODE ROLE SIZE COUNT RING_BYTES [PEER PATH]. The client prints
 * nanoseconds. Without the last two the domains are 1 and 2, as they are on a loopback host.
 *
 *   ping    COUNT messages of SIZE bytes there and back: of a round trip
 *   stream  COUNT messages of SIZE bytes one way, to the acknowledgement of the last: of a message
 *   ask     COUNT questions how much could be read, while nothing moves: of a question
 *
 * It knows nothing of a tracer. The first tenth of it is not measured.
 */
#include <libxenvchan.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SERVER_DOMID 1
#define CLIENT_DOMID 2
#define PATH "data/moving"

static struct libxenvchan *channel;
static char *buffer;

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void check(int moved)
{
    if (moved > 0)
        return;
    fprintf(stderr, "moving: the peer is gone\n");
    exit(1);
}

static void put(size_t size)
{
    check(libxenvchan_write(channel, buffer, size));
}

static void get(size_t size)
{
    while (size) {
        int got = libxenvchan_read(channel, buffer, size);

        check(got);
        size -= (size_t)got;
    }
}

static void serve(const char *mode, size_t size, size_t count)
{
    if (!strcmp(mode, "ask")) {
        get(1);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        get(size);
        if (!strcmp(mode, "ping"))
            put(size);
    }
    if (!strcmp(mode, "stream"))
        put(1);
}

static void one(const char *mode, size_t size)
{
    if (!strcmp(mode, "ask")) {
        libxenvchan_data_ready(channel);
        return;
    }
    put(size);
    if (!strcmp(mode, "ping"))
        get(size);
}

static void ask(const char *mode, size_t size, size_t count)
{
    size_t warm = count / 10;
    uint64_t began = 0;

    for (size_t i = 0; i < count; i++) {
        if (i == warm)
            began = now();
        one(mode, size);
    }
    if (!strcmp(mode, "stream"))
        get(1);
    printf("%.1f\n", (double)(now() - began) / (double)(count - warm));
    if (!strcmp(mode, "ask"))
        put(1);
}

int main(int argc, char **argv)
{
    size_t size, count, ring;
    const char *path;
    int is_server, peer;

    if (argc != 6 && argc != 8)
        return 2;
    is_server = !strcmp(argv[2], "server");
    peer = argc == 8 ? atoi(argv[6]) : is_server ? CLIENT_DOMID : SERVER_DOMID;
    path = argc == 8 ? argv[7] : is_server ? PATH : "/local/domain/1/" PATH;
    size = strtoul(argv[3], NULL, 10);
    count = strtoul(argv[4], NULL, 10);
    ring = strtoul(argv[5], NULL, 10);
    buffer = calloc(1, size + 1);
    if (is_server) {
        channel = libxenvchan_server_init(NULL, peer, path, ring, ring);
        if (!channel)
            return 1;
        channel->blocking = 1;
        puts("up");
        fflush(stdout);
        serve(argv[1], size, count);
        while (libxenvchan_is_open(channel))
            libxenvchan_wait(channel);
    } else {
        channel = libxenvchan_client_init(NULL, peer, path);
        if (!channel)
            return 1;
        channel->blocking = 1;
        ask(argv[1], size, count);
    }
    libxenvchan_close(channel);
    return 0;
}
