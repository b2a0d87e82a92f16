#!/bin/sh
# Install the Debian packages of a list that this machine lacks.
#
#   install.sh LIST
#
# LIST has one package a line; '#' starts a comment. Nothing is installed when nothing is
# missing. A user who is not root and cannot use sudo is told the command to ask for.
# Exit status: 0 all there, 2 bad list, 4 could not install.
set -eu

list=${1:?"usage: install.sh LIST"}
[ -r "$list" ] || { echo "install.sh: cannot read $list" >&2; exit 2; }

wanted=$(sed -e 's/#.*//' "$list" | tr -s ' \t\n' ' ')

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "This machine has no dpkg. Install the counterparts of these Debian packages by hand:" >&2
    echo " $wanted" >&2
    exit 4
fi

missing=
for package in $wanted; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || :)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command="apt-get install --yes --no-install-recommends$missing"
quietly="env DEBIAN_FRONTEND=noninteractive"
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "These Debian packages are missing:$missing" >&2
    echo "Next: have them installed with: sudo $command" >&2
    echo "      then type the same make command again." >&2
    exit 4
fi

echo "Debian packages that are missing:$missing"
# The word splitting of $as_root, $quietly and $command is meant.
# shellcheck disable=SC2086
if ! $as_root $quietly $command >/dev/null 2>&1; then
    echo "Debian packages: the lists are old or absent, so they are fetched first"
    $as_root apt-get update --quiet --quiet
    $as_root $quietly $command
fi
