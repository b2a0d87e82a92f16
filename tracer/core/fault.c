/* SIGSEGV: an access to a decoy page is done on the real one; all others go to whoever was here. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <x86intrin.h>

#include "core.h"
#include "emulate.h"

struct cell {
    uint16_t offset;
    uint8_t width;
};
/* struct vchan_interface: accesses that cover several of these are logged as several. */
static const struct cell cells[] = {
    {0, 4}, {4, 4}, {8, 4}, {12, 4}, {16, 2}, {18, 2}, {20, 1}, {21, 1}, {22, 1}, {23, 1},
};
#define CELLS (sizeof(cells) / sizeof(*cells))
#define CELLS_END 24u
#define NOTIFY_BYTES 22u

/* The order of registers in an instruction, and where a signal's context has them. */
static const int place_of[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static struct sigaction before;
static bool installed;

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        errno = 0;
}

static void refuse(const uint8_t *code)
{
    static const char digits[] = "0123456789abcdef";
    char text[] = "vchan-testbed tracer: no way to follow the instruction "
                  "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00: please report it.\n";
    char *at = strstr(text, "00");

    for (int i = 0; i < 15; i++, at += 3) {
        at[0] = digits[code[i] >> 4];
        at[1] = digits[code[i] & 15];
    }
    say(text);
    abort();
}

static void pass_on(int number, siginfo_t *info, void *context)
{
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
        /* The default action: back to the instruction without us. */
        signal(number, SIG_DFL);
    } else {
        before.sa_handler(number);
    }
}

static uintptr_t text_base;

void fault_set_text_base(uintptr_t base) { text_base = base; }

static void take_registers(struct vt_registers *to, const greg_t *from)
{
    for (int i = 0; i < 16; i++)
        to->general[i] = (uint64_t)from[place_of[i]];
    to->flags = (uint64_t)from[REG_EFL];
}

static void give_registers(greg_t *to, const struct vt_registers *from)
{
    for (int i = 0; i < 16; i++)
        to[place_of[i]] = (greg_t)from->general[i];
    to[REG_EFL] = (greg_t)from->flags;
}

static void log_cell(const struct channel *channel, uint32_t site, const struct vt_access *access,
                     uint32_t offset, uint8_t width, uint32_t shift)
{
    struct thread *thread = this_thread();
    struct vt_record *record = log_begin(thread);
    uint64_t mask = width < 8 ? (1ull << width * 8) - 1 : ~0ull;

    if (!record)
        return;
    record->t0 = access->t0;
    record->t1 = access->t1;
    record->old = access->old >> shift & mask;
    record->new_ = access->new_ >> shift & mask;
    record->site = site;
    record->operand = (uint32_t)access->operand;
    record->offset = (uint16_t)offset;
    record->kind = access->kind;
    record->op = access->op;
    record->width = width;
    record->flags = access->flags;
    record->channel = channel_number(channel);
    log_commit(thread, record);
}

/* One record a cell: a 16-bit store can cover both live bytes. */
static void log_access(const struct channel *channel, uint32_t site,
                       const struct vt_access *access, uint32_t offset)
{
    bool split = false;

    for (unsigned i = 0; i < CELLS; i++) {
        const struct cell *cell = &cells[i];

        if (cell->offset < offset || cell->offset + cell->width > offset + access->width ||
            cell->width == access->width)
            continue;
        log_cell(channel, site, access, cell->offset, cell->width, (cell->offset - offset) * 8);
        split = true;
    }
    if (!split)
        log_cell(channel, site, access, offset, access->width, 0);
    if (offset >= NOTIFY_BYTES && offset < CELLS_END)
        this_thread()->cleared_bits = (uint8_t)(access->old & ~access->new_);
}

static void do_access(const struct vt_instruction *instruction, struct channel *channel,
                      uint32_t site, uint32_t offset, struct vt_registers *registers)
{
    struct vt_access access = {0};

    vt_emulate(instruction, registers, channel->page + offset, &access);
    if (access.flags & VT_FLAG_LOST_UPDATE) {
        struct vt_access seen = {.t0 = access.t0, .t1 = access.t0, .old = access.loaded,
                                 .new_ = access.loaded, .kind = VT_LOAD, .width = access.width};
        log_access(channel, site, &seen, offset);
    }
    log_access(channel, site, &access, offset);
}

/* rep stos, as init clears the page: a record for each cell and one for all that lies above.
   Returns the bytes that were filled; what lies beyond the page is not ours. */
static uint64_t do_fill(const struct vt_instruction *instruction, struct channel *channel,
                        uint32_t site, uint32_t offset, struct vt_registers *registers)
{
    uint64_t room = (PAGE_BYTES - offset) / instruction->width;
    uint64_t count = registers->general[VT_RCX] < room ? registers->general[VT_RCX] : room;
    uint64_t value = registers->general[VT_RAX];
    uint32_t end = offset + (uint32_t)count * instruction->width;
    struct vt_access access = {.t0 = __rdtsc(), .kind = VT_BULK, .op = VT_OP_MOV, .new_ = value};

    for (uint64_t i = 0; i < count; i++)
        vt_exchange(channel->page + offset + i * instruction->width, instruction->width, value);
    access.t1 = __rdtsc();
    registers->general[VT_RCX] -= count;
    registers->general[VT_RDI] += count * instruction->width;
    for (unsigned i = 0; i < CELLS; i++)
        if (cells[i].offset >= offset && cells[i].offset + cells[i].width <= end)
            log_cell(channel, site, &access, cells[i].offset, cells[i].width, 0);
    uint32_t above = offset > CELLS_END ? offset : CELLS_END;
    if (end > above) {
        access.operand = end - above;
        log_cell(channel, site, &access, above, 8, 0);
    }
    return registers->general[VT_RCX];
}

static void on_fault(int number, siginfo_t *info, void *raw_context)
{
    ucontext_t *context = raw_context;
    greg_t *saved_registers = context->uc_mcontext.gregs;
    struct channel *channel = channel_of_decoy(info->si_addr);
    struct vt_instruction instruction;
    struct vt_registers registers;
    int saved = errno;

    if (!channel || !channel->page) {
        pass_on(number, info, raw_context);
        return;
    }
    const uint8_t *code = (const uint8_t *)saved_registers[REG_RIP];
    if (!vt_decode(code, &instruction))
        refuse(code);
    uint32_t offset = (uint32_t)((uint8_t *)info->si_addr - channel->decoy);
    uint32_t site = (uint32_t)((uintptr_t)code - text_base);
    uint64_t left_over = 0;
    take_registers(&registers, saved_registers);
    if (instruction.form == VT_FORM_FILL && instruction.repeated)
        left_over = do_fill(&instruction, channel, site, offset, &registers);
    else
        do_access(&instruction, channel, site, offset, &registers);
    give_registers(saved_registers, &registers);
    if (!left_over)
        saved_registers[REG_RIP] += instruction.length;
    errno = saved;
}

/* Also when it is installed already: somebody may have taken the signal since. */
int fault_install(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    struct sigaction old;

    sigemptyset(&action.sa_mask);
    if (sigaction(SIGSEGV, &action, &old) < 0)
        return -errno;
    if (!(old.sa_flags & SA_SIGINFO) || old.sa_sigaction != on_fault)
        before = old;
    installed = true;
    return 0;
}

void fault_remove(void)
{
    struct sigaction now;

    if (!installed || sigaction(SIGSEGV, NULL, &now) < 0)
        return;
    /* Somebody who came later chains to us and has to find us here. */
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_fault)
        sigaction(SIGSEGV, &before, NULL);
    installed = false;
}
