#!/bin/sh
# In the place of mmdebstrap: packs the folder FAKE_TREE, or fails if there is none.
printf '%s\n' "$@" >"$FAKE_ARGUMENTS"
if [ -n "${FAKE_TREE:-}" ]; then
    exec tar --create --directory "$FAKE_TREE" .
fi
echo "E: no such mirror" >&2
exit 25
