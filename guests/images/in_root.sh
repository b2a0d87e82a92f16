#!/bin/sh
# Run a command inside a root, with one folder of this machine at /mnt.
#
#   unshare --mount [--map-root-user] in_root.sh ROOT FOLDER COMMAND...
#
# The mounts live in the caller's private mount namespace, so they end with the command and two
# of these can use one root at a time. Nothing is written into the root itself.
set -eu

root=$1
folder=$2
shift 2

# Debian leaves the folders of chroot and mount out of the PATH of users who are not root.
PATH=$PATH:/usr/sbin:/sbin

mount --bind "$folder" "$root/mnt"
mount --bind /dev/null "$root/dev/null"
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/mnt LC_ALL=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 "$@"
