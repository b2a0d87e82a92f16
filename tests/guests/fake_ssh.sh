#!/bin/sh
# Stands for ssh: runs the command of a session on this machine, or fails as ssh does.
# $FAKE_SSH_SAYS: what it says before it fails with ssh's status 255. $FAKE_SSH_LOG: its arguments.
set -eu
echo "$*" >>"$FAKE_SSH_LOG"
if [ -n "${FAKE_SSH_SAYS:-}" ]; then
    echo "$FAKE_SSH_SAYS" >&2
    exit 255
fi
while [ "$1" != -- ]; do
    [ "$1" != -O ] || exit 0
    shift
done
shift 2
exec env "PATH=${FAKE_SSH_PATH:-$PATH}" sh -c "$*"
