#include "inject.h"

#include <stdatomic.h>

static struct vt_rule rules[VT_RULES_MAX];
static _Atomic uint32_t seen[VT_RULES_MAX];
static unsigned rule_count;

void vt_inject_set(const struct vt_rule *new_rules, unsigned count)
{
    rule_count = count < VT_RULES_MAX ? count : VT_RULES_MAX;
    for (unsigned i = 0; i < rule_count; i++) {
        rules[i] = new_rules[i];
        atomic_store(&seen[i], 0);
    }
}

int vt_inject_on_notify(uint8_t cleared_bits)
{
    int drops = -1;

    /* Every rule counts, also behind one that drops. */
    for (unsigned i = 0; i < rule_count; i++) {
        if (rules[i].bits && !(rules[i].bits & cleared_bits))
            continue;
        if (atomic_fetch_add(&seen[i], 1) + 1 == rules[i].nth && drops < 0)
            drops = (int)i;
    }
    return drops;
}
