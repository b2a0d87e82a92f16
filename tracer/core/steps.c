#include "steps.h"

#include "record.h"
#include "quiet.h"

static struct vt_step_row table[VT_STEP_ROWS_MAX];
static unsigned table_rows;

void vt_steps_set(const struct vt_step_row *rows, unsigned count)
{
    table_rows = count < VT_STEP_ROWS_MAX ? count : VT_STEP_ROWS_MAX;
    for (unsigned i = 0; i < table_rows; i++)
        table[i] = rows[i];
}

bool vt_step_goes_on(uint8_t kind)
{
    return (kind >= VT_STORE && kind <= VT_CMPXCHG_FAIL) || kind == VT_PENDING_ENTER ||
           kind == VT_CALL_ENTER || kind == VT_CALL_EXIT;
}

static bool fits(const struct vt_step_row *row, const struct vt_follow *follow, uint8_t call,
                 uint8_t kind, uint8_t offset)
{
    return row->kind == kind && row->offset == offset && (row->calls & 1u << call) &&
           (!row->after || (row->after & 1ull << follow->last));
}

struct vt_step vt_step_at(const struct vt_follow *follow, uint8_t call, uint8_t kind,
                          uint8_t offset)
{
    if (kind == VT_LOAD && follow->looks && follow->looks_at == offset)
        return (struct vt_step){ follow->looks, true, NULL };
    if (kind == VT_LOAD && follow->owed && follow->owed_at == offset)
        return (struct vt_step){ follow->owed, false, NULL };
    for (unsigned i = 0; i < table_rows; i++)
        if (fits(&table[i], follow, call, kind, offset))
            return (struct vt_step){ table[i].action, false, &table[i] };
    return (struct vt_step){ 0, false, NULL };
}

static void owe(struct vt_follow *follow, const struct vt_step_row *row)
{
    for (unsigned i = 0; i < 2; i++)
        if (row->first_last[i] && row->first_last[i] == follow->last) {
            follow->owed = row->first_action[i];
            follow->owed_at = row->first_offset[i];
        }
}

void vt_step_taken(struct vt_follow *follow, struct vt_step step, uint8_t kind, uint8_t offset)
{
    if (vt_step_goes_on(kind))
        follow->looks = follow->owed = 0;
    if (!step.action || step.more)
        return;
    if (!step.row) {
        /* What was owed belongs before the last step. */
        follow->owed = 0;
        return;
    }
    owe(follow, step.row);
    follow->last = step.action;
    if (step.row->decides) {
        follow->looks = step.action;
        follow->looks_at = offset;
    }
}
