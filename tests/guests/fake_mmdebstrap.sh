#!/bin/sh
# In the place of mmdebstrap: packs the folder FAKE_TREE, or goes on for ever in the temporary folder
# FAKE_ENDLESS, of which it tells the pipe FAKE_STARTED, or fails.
printf '%s\n' "$@" >"$FAKE_ARGUMENTS"
if [ -n "${FAKE_TREE:-}" ]; then
    exec tar --create --directory "$FAKE_TREE" .
fi
if [ -n "${FAKE_ENDLESS:-}" ]; then
    # As the real one: asked to end, it waits for the child, then removes its folder.
    trap : TERM
    mkdir "$FAKE_ENDLESS"
    echo started >"$FAKE_STARTED"
    tail -f /dev/null
    rm -r "$FAKE_ENDLESS"
    exit 1
fi
echo "E: no such mirror" >&2
exit 25
