#define _GNU_SOURCE
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* "store/a/b" for "/a/b", and a file in it when `file` is given. */
static void file_name(const char *path, const char *file, char *name, size_t name_bytes)
{
    snprintf(name, name_bytes, "store%s%s%s", strcmp(path, "/") ? path : "", file ? "/" : "",
             file ? file : "");
}

#define FILE_NAME_BYTES (NODE_PATH_BYTES_MAX + 32)

static char perm_letter(unsigned int perms)
{
    switch (perms) {
    case XS_PERM_READ: return 'r';
    case XS_PERM_WRITE: return 'w';
    case XS_PERM_READ | XS_PERM_WRITE: return 'b';
    default: return 'n';
    }
}

static unsigned int perm_of_letter(char letter)
{
    switch (letter) {
    case 'r': return XS_PERM_READ;
    case 'w': return XS_PERM_WRITE;
    case 'b': return XS_PERM_READ | XS_PERM_WRITE;
    default: return XS_PERM_NONE;
    }
}

int store_create(struct host_view *view)
{
    struct node root = {.perms_count = 1, .perms = {{.id = 0, .perms = XS_PERM_NONE}}};

    return node_write_locked(view, "/", &root);
}

static FILE *node_open(const struct host_view *view, const char *path)
{
    char name[FILE_NAME_BYTES];
    FILE *file;
    int fd;

    file_name(path, ".node", name, sizeof(name));
    fd = openat(view->dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    file = fdopen(fd, "r");
    if (!file)
        close(fd);
    return file;
}

static int perms_parse(const char *line, struct node *node)
{
    int used;
    char letter;
    unsigned int id;

    node->perms_count = 0;
    while (sscanf(line, " %c%u%n", &letter, &id, &used) == 2) {
        if (node->perms_count == NODE_PERMS_MAX)
            break;
        node->perms[node->perms_count].id = id;
        node->perms[node->perms_count++].perms = perm_of_letter(letter);
        line += used;
    }
    if (!node->perms_count)
        errno = EIO;
    return node->perms_count ? 0 : -1;
}

int node_read_locked(const struct host_view *view, const char *path, struct node *node)
{
    char line[NODE_PERMS_MAX * 16];
    FILE *file = node_open(view, path);
    int done = -1;

    if (!file)
        return -1;
    errno = EIO;
    if (fscanf(file, "%" SCNu64, &node->generation) == 1 && fgetc(file) == '\n' &&
        fgets(line, sizeof(line), file) && !perms_parse(line, node)) {
        node->value_bytes = (uint32_t)fread(node->value, 1, sizeof(node->value), file);
        done = 0;
    }
    fclose(file);
    return done;
}

uint64_t node_generation_locked(const struct host_view *view, const char *path)
{
    FILE *file = node_open(view, path);
    uint64_t generation = 0;

    if (!file)
        return 0;
    if (fscanf(file, "%" SCNu64, &generation) != 1)
        generation = 0;
    fclose(file);
    return generation;
}

static int node_fill(FILE *file, uint64_t generation, const struct node *node)
{
    fprintf(file, "%" PRIu64 "\n", generation);
    for (uint32_t i = 0; i < node->perms_count; i++)
        fprintf(file, "%s%c%u", i ? " " : "", perm_letter(node->perms[i].perms),
                node->perms[i].id);
    fputc('\n', file);
    fwrite(node->value, 1, node->value_bytes, file);
    return ferror(file) ? -1 : 0;
}

int node_write_locked(const struct host_view *view, const char *path, const struct node *node)
{
    char folder[FILE_NAME_BYTES], draft[FILE_NAME_BYTES], name[FILE_NAME_BYTES];
    FILE *file;
    int fd, failed;

    file_name(path, NULL, folder, sizeof(folder));
    file_name(path, ".draft", draft, sizeof(draft));
    file_name(path, ".node", name, sizeof(name));
    if (mkdirat(view->dir_fd, folder, 0700) && errno != EEXIST)
        return -1;
    fd = openat(view->dir_fd, draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    file = fdopen(fd, "w");
    if (!file) {
        close(fd);
        return -1;
    }
    failed = node_fill(file, ++view->host->store_generation, node);
    failed |= fclose(file);
    return failed ? -1 : renameat(view->dir_fd, draft, view->dir_fd, name);
}

struct removal {
    const struct host_view *view;
    const char *path;
    int failed;
};

static void child_remove(void *context, const char *name)
{
    struct removal *removal = context;
    char child[NODE_PATH_BYTES_MAX];

    if (path_join(removal->path, name, child) || node_remove_locked(removal->view, child))
        removal->failed = -1;
}

int node_remove_locked(const struct host_view *view, const char *path)
{
    struct removal removal = {view, path, 0};
    char name[FILE_NAME_BYTES];

    if (node_children_locked(view, path, child_remove, &removal) || removal.failed)
        return -1;
    file_name(path, ".node", name, sizeof(name));
    if (unlinkat(view->dir_fd, name, 0))
        return -1;
    file_name(path, ".draft", name, sizeof(name));
    unlinkat(view->dir_fd, name, 0); /* left by a process that was killed */
    file_name(path, NULL, name, sizeof(name));
    return unlinkat(view->dir_fd, name, AT_REMOVEDIR);
}

int node_children_locked(const struct host_view *view, const char *path,
                         void (*visit)(void *context, const char *name), void *context)
{
    char name[FILE_NAME_BYTES];
    const struct dirent *entry;
    DIR *folder;
    int fd;

    file_name(path, NULL, name, sizeof(name));
    fd = openat(view->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return -1;
    }
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.')
            visit(context, entry->d_name);
    closedir(folder);
    return 0;
}

void path_parent(const char *path, char *parent)
{
    size_t bytes = (size_t)(strrchr(path, '/') - path);

    memmove(parent, path, bytes ? bytes : 1);
    parent[bytes ? bytes : 1] = '\0';
}

int path_join(const char *path, const char *name, char *joined)
{
    int bytes = snprintf(joined, NODE_PATH_BYTES_MAX, "%s/%s", strcmp(path, "/") ? path : "", name);

    if (bytes < 0 || (unsigned int)bytes >= NODE_PATH_BYTES_MAX) {
        errno = EINVAL;
        return -1;
    }
    return 0;
}
