/*
 * A conversation with every call of libxenvchan, in which chance decides no more than who waits for
 * whom: conversation ROLE. The server says "up" when it can be met.
 */
#include <libxenvchan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_DOMID 1
#define CLIENT_DOMID 2
#define PATH "data/conversation"
#define RING 4096
#define STREAM 9000
#define PACKET 300

static struct libxenvchan *channel;
static char buffer[STREAM];

static void due(int is_true, const char *what)
{
    if (is_true)
        return;
    fprintf(stderr, "conversation: %s\n", what);
    exit(1);
}

static void say(void)
{
    due(libxenvchan_write(channel, buffer, 1) == 1, "the turn cannot be given");
}

static void hear(void)
{
    due(libxenvchan_read(channel, buffer, 1) == 1, "the turn does not come");
}

static void read_all(int count)
{
    while (count) {
        int got = libxenvchan_read(channel, buffer, sizeof(buffer));

        due(got > 0, "the stream ends early");
        count -= got;
    }
}

static void serve(void)
{
    /* The writer has to wait for room: nothing is read before the ring is full. */
    while (libxenvchan_data_ready(channel) < RING)
        libxenvchan_wait(channel);
    read_all(STREAM);
    channel->blocking = 0;
    due(libxenvchan_read(channel, buffer, 1) == 0, "there was something to read");
    due(libxenvchan_recv(channel, buffer, PACKET) == 0, "there was a packet");
    channel->blocking = 1;
    say();
    due(libxenvchan_recv(channel, buffer, PACKET) == PACKET, "the packet does not come");
    say();
    while (libxenvchan_is_open(channel) == 1)
        libxenvchan_wait(channel);
    due(libxenvchan_read(channel, buffer, 1) == -1, "the end is not told");
}

static void ask(void)
{
    due(libxenvchan_buffer_space(channel) == RING, "the ring is not empty");
    due(libxenvchan_write(channel, buffer, STREAM) == STREAM, "the stream cannot be written");
    hear();
    channel->blocking = 0;
    due(libxenvchan_send(channel, buffer, RING + 1) == 0, "too large a packet was sent");
    channel->blocking = 1;
    due(libxenvchan_send(channel, buffer, PACKET) == PACKET, "the packet cannot be sent");
    hear();
}

int main(int argc, char **argv)
{
    due(argc == 2, "which role?");
    if (!strcmp(argv[1], "server"))
        channel = libxenvchan_server_init(NULL, CLIENT_DOMID, PATH, RING, RING);
    else
        channel = libxenvchan_client_init(NULL, SERVER_DOMID, "/local/domain/1/" PATH);
    due(channel != NULL, "no channel");
    channel->blocking = 1;
    if (!strcmp(argv[1], "server")) {
        puts("up");
        fflush(stdout);
        serve();
    } else {
        ask();
    }
    libxenvchan_close(channel);
    return 0;
}
