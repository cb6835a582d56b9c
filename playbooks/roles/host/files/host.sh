#!/bin/sh
# host.sh LAB_DIR BRIDGE ADDRESS/BITS     prints what it changed, nothing when all is in place
set -eu
lab=$1 bridge=$2 address=$3

directory() { [ -d "$2" ] || { mkdir -p -m "$1" "$2"; echo "$2"; }; }

directory 0755 "$lab"
for name in config log supervisor.d containerd kubelet cni cni/bin cni/conf manifests pv; do
  directory 0755 "$lab/$name"
done
for name in pki etcd audit podlogs; do directory 0700 "$lab/$name"; done
[ -e "$lab/config/resolv.conf" ] || : >"$lab/config/resolv.conf"

# The runtime looks for plugins in the lab's own directory: istio-cni adds one and must not write to the system's.
for plugin in /usr/lib/cni/*; do
  link="$lab/cni/bin/${plugin##*/}"
  [ -e "$link" ] || { ln -sf "$plugin" "$link"; echo "$link"; }
done

[ -d "/sys/class/net/$bridge" ] || { ip link add "$bridge" type bridge; echo "bridge $bridge"; }
ip -o address show dev "$bridge" | grep -qF " $address " || { ip address replace "$address" dev "$bridge"; echo "address $address"; }
ip -o link show dev "$bridge" | grep -q '[<,]UP[,>]' || { ip link set "$bridge" up; echo "$bridge up"; }

[ -e "$lab/config/ip_forward.before" ] || cat /proc/sys/net/ipv4/ip_forward >"$lab/config/ip_forward.before"   # for clean-lab
[ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ] || { echo 1 >/proc/sys/net/ipv4/ip_forward; echo "IPv4 forwarding"; }

# Before the first pod: the first `ip netns add` on a machine binds /run/netns onto itself and so doubles every mount
# in it; pods then hang in Terminating ("remove netns: device or resource busy"). So it is bound and shared here.
mkdir -p /run/netns
mountpoint -q /run/netns || { mount --bind /run/netns /run/netns; echo "/run/netns bound"; }
grep -q ' /run/netns .* shared:' /proc/self/mountinfo || { mount --make-shared /run/netns; echo "/run/netns shared"; }
