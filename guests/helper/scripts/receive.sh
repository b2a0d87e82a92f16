#!/bin/sh
# Runs on a Xen host, given as the command of an ssh session: takes the helper's file from
# standard input into a private folder and prints that folder's name.
set -eu
umask 077
if ! command -v python3 >/dev/null; then
    echo "vchan-testbed: no python3" >&2
    exit 41
fi
folder=$(mktemp -d "${TMPDIR:-/tmp}/vchan-testbed-helper.XXXXXX")
cat >"$folder/helper.pyz"
echo "$folder"
