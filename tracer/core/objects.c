#include "objects.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "translate.h"

#define SONAME_START "libxenvchan.so"

struct vt_library vt_library;
void *(*vt_dlsym)(void *, const char *) = dlsym;

/* What is needed of one object's dynamic section. */
struct tables {
    const ElfW(Sym) *symbols;
    const char *strings;
    const ElfW(Rela) *jumps; /* DT_JMPREL: calls through the PLT */
    size_t jumps_bytes;
    const ElfW(Rela) *data; /* DT_RELA: -fno-plt calls and pointers to functions */
    size_t data_bytes;
    const char *soname;
};

static const void *relocated(const struct dl_phdr_info *object, ElfW(Addr) address)
{
    /* glibc has relocated these in place, but not in objects whose dynamic section is read-only. */
    return (const void *)(address < object->dlpi_addr ? address + object->dlpi_addr : address);
}

static bool read_tables(const struct dl_phdr_info *object, struct tables *tables)
{
    const ElfW(Dyn) *dynamic = NULL;
    size_t soname = 0;

    memset(tables, 0, sizeof(*tables));
    for (int i = 0; i < object->dlpi_phnum; i++)
        if (object->dlpi_phdr[i].p_type == PT_DYNAMIC)
            dynamic = (const void *)(object->dlpi_addr + object->dlpi_phdr[i].p_vaddr);
    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
        switch (dynamic->d_tag) {
        case DT_SYMTAB:
            tables->symbols = relocated(object, dynamic->d_un.d_ptr);
            break;
        case DT_STRTAB:
            tables->strings = relocated(object, dynamic->d_un.d_ptr);
            break;
        case DT_JMPREL:
            tables->jumps = relocated(object, dynamic->d_un.d_ptr);
            break;
        case DT_PLTRELSZ:
            tables->jumps_bytes = dynamic->d_un.d_val;
            break;
        case DT_RELA:
            tables->data = relocated(object, dynamic->d_un.d_ptr);
            break;
        case DT_RELASZ:
            tables->data_bytes = dynamic->d_un.d_val;
            break;
        case DT_SONAME:
            soname = dynamic->d_un.d_val;
            break;
        }
    }
    if (tables->strings && soname)
        tables->soname = tables->strings + soname;
    return tables->symbols && tables->strings;
}

static size_t bytes_of(const struct dl_phdr_info *object)
{
    size_t end = 0;

    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];

        if (segment->p_type == PT_LOAD && segment->p_vaddr + segment->p_memsz > end)
            end = segment->p_vaddr + segment->p_memsz;
    }
    return end;
}

static void append_hex(char *text, size_t room, const uint8_t *bytes, size_t count)
{
    size_t length = strlen(text);

    for (size_t i = 0; i < count && length + 3 < room; i++, length += 2)
        snprintf(text + length, room - length, "%02x", bytes[i]);
}

/* The note that tells two builds of one version apart. */
static void append_build_id(const struct dl_phdr_info *object, char *text, size_t room)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        const uint8_t *at = (const uint8_t *)(object->dlpi_addr + segment->p_vaddr);
        const uint8_t *end = at + segment->p_memsz;

        while (segment->p_type == PT_NOTE && at + sizeof(ElfW(Nhdr)) <= end) {
            const ElfW(Nhdr) *note = (const void *)at;
            const uint8_t *content = at + sizeof(*note) + ((note->n_namesz + 3) & ~3u);

            if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
                !memcmp(note + 1, "GNU", 4)) {
                append_hex(text, room, content, note->n_descsz);
                return;
            }
            at = content + ((note->n_descsz + 3) & ~3u);
        }
    }
}

static bool is_libxenvchan(const struct dl_phdr_info *object, const struct tables *tables)
{
    const char *slash = strrchr(object->dlpi_name, '/');
    const char *name = tables->soname ? tables->soname : slash ? slash + 1 : object->dlpi_name;

    return !strncmp(name, SONAME_START, strlen(SONAME_START));
}

static int take_library(struct dl_phdr_info *object, size_t size, void *unused)
{
    struct tables tables;

    (void)size;
    (void)unused;
    if (!read_tables(object, &tables) || !is_libxenvchan(object, &tables))
        return 0;
    vt_library.base = object->dlpi_addr;
    vt_library.bytes = bytes_of(object);
    snprintf(vt_library.path, sizeof(vt_library.path), "%s", object->dlpi_name);
    snprintf(vt_library.name, sizeof(vt_library.name), "%s ",
             tables.soname ? tables.soname : SONAME_START);
    append_build_id(object, vt_library.name, sizeof(vt_library.name));
    return 1;
}

bool vt_find_library(void)
{
    memset(&vt_library, 0, sizeof(vt_library));
    return dl_iterate_phdr(take_library, NULL) == 1;
}

/* ---- patching ---- */

struct work {
    const struct vt_patch *patches;
    size_t count;
    uintptr_t own_base;
    const char *unpatched; /* a function whose slot could not be written */
};

/* Writes to a slot that full RELRO has made read-only, and makes it read-only again. */
static bool write_slot(const struct dl_phdr_info *object, void **slot, void *value)
{
    uintptr_t page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t page = (uintptr_t)slot & ~(page_bytes - 1);
    bool is_read_only = false;

    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        uintptr_t start = object->dlpi_addr + segment->p_vaddr;

        /* The loader protects whole pages only, so the last partial one stays writable. */
        if (segment->p_type == PT_GNU_RELRO && page >= (start & ~(page_bytes - 1)) &&
            page + page_bytes <= start + segment->p_memsz)
            is_read_only = true;
    }
    if (is_read_only && mprotect((void *)page, page_bytes, PROT_READ | PROT_WRITE))
        return false;
    __atomic_store_n(slot, value, __ATOMIC_SEQ_CST);
    if (is_read_only)
        mprotect((void *)page, page_bytes, PROT_READ);
    return true;
}

static void patch_slots(const struct dl_phdr_info *object, const struct tables *tables,
                        const ElfW(Rela) *relocations, size_t bytes, struct work *work)
{
    bool in_library = object->dlpi_addr == vt_library.base;

    for (size_t i = 0; i < bytes / sizeof(*relocations); i++) {
        const ElfW(Rela) *relocation = &relocations[i];
        unsigned type = (unsigned)ELF64_R_TYPE(relocation->r_info);
        const char *name = tables->strings + tables->symbols[ELF64_R_SYM(relocation->r_info)].st_name;
        void **slot = (void **)(object->dlpi_addr + relocation->r_offset);

        if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT &&
            (type != R_X86_64_64 || relocation->r_addend))
            continue;
        for (size_t p = 0; p < work->count; p++) {
            const struct vt_patch *patch = &work->patches[p];
            void *replacement = in_library ? patch->in_library : patch->in_others;

            /* What libxenvchan calls of its own is its own: its copy, where there is one. */
            if (in_library && !replacement)
                replacement = *patch->original;

            if (replacement && *slot != replacement && !strcmp(name, patch->name) &&
                !write_slot(object, slot, replacement))
                work->unpatched = patch->name;
        }
    }
}

static int patch_object(struct dl_phdr_info *object, size_t size, void *data)
{
    struct work *work = data;
    struct tables tables;

    (void)size;
    if (object->dlpi_addr == work->own_base || !read_tables(object, &tables))
        return 0;
    patch_slots(object, &tables, tables.jumps, tables.jumps_bytes, work);
    patch_slots(object, &tables, tables.data, tables.data_bytes, work);
    return 0;
}

/* Asked of libxenvchan itself: it and what it needs may be in nobody else's scope. */
static const char *find_originals(const struct vt_patch *patches, size_t count)
{
    void *library = dlopen(vt_library.path, RTLD_LAZY | RTLD_NOLOAD);
    const char *missing = NULL;

    if (!library)
        return vt_library.path;
    for (size_t i = 0; i < count; i++) {
        void *found = vt_dlsym(library, patches[i].name);

        if (!found)
            missing = patches[i].name;
        *patches[i].original = vt_translated_code(found);
    }
    dlclose(library);
    return missing;
}

bool vt_is_original(const struct vt_patch *patch, void *code)
{
    return *patch->original && vt_original_code(*patch->original) == vt_original_code(code);
}

int vt_patch_objects(const struct vt_patch *patches, size_t count, const char **name)
{
    struct work work = { .patches = patches, .count = count };
    Dl_info own;

    *name = find_originals(patches, count);
    if (*name)
        return -ENOENT;
    if (dladdr((const void *)vt_patch_objects, &own))
        work.own_base = (uintptr_t)own.dli_fbase;
    dl_iterate_phdr(patch_object, &work);
    *name = work.unpatched;
    return *name ? -EACCES : 0;
}
