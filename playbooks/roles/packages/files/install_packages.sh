#!/bin/sh
# install_packages.sh PACKAGE...     installs what is missing, prints nothing when all is there
set -eu
missing=
for package in "$@"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=120 update
# shellcheck disable=SC2086  # one word each
apt-get -qy -o DPkg::Lock::Timeout=120 --no-install-recommends install $missing
