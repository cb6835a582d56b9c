#!/bin/sh
# make_directories.sh LAB_DIR     prints the directories it made
set -eu
make() { [ -d "$2" ] || { mkdir -p -m "$1" "$2"; echo "$2"; }; }

make 0755 "$1"
for name in config log supervisor.d containerd kubelet cni cni/bin cni/conf manifests podlogs pv; do
  make 0755 "$1/$name"
done
for name in pki etcd audit; do make 0700 "$1/$name"; done

# The runtime looks for plugins in the lab's own directory, because istio-cni adds one and must not write to the system's.
for plugin in /usr/lib/cni/*; do
  link="$1/cni/bin/${plugin##*/}"
  [ -e "$link" ] || { ln -sf "$plugin" "$link"; echo "$link"; }
done

[ -e "$1/config/resolv.conf" ] || : >"$1/config/resolv.conf"
