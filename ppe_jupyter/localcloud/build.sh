#!/bin/sh
# Makes a node's root file system: build.sh ROOT MIRROR HOSTFILES BOOTSTRAP. Run by image.py as root in a mount and
# PID namespace of its own, so that whatever is mounted or started here ends with it. Lines that begin with "ppe"
# are progress.
set -eu
root=$1 mirror=$2 host=$3 bootstrap=$4 here=$(dirname "$0")
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "ppe image: fetching the Debian 12 base system from $mirror"
debootstrap --variant=minbase --foreign --keyring=$keyring bookworm "$root" "$mirror"

# No fsync for each file, no manual pages: half of the time.
cat >"$root/etc/dpkg/dpkg.cfg.d/ppe-image" <<'END'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
END
echo "ppe image: unpacking the base system"
chroot "$root" /debootstrap/debootstrap --second-stage

rm -f "$root/etc/apt/sources.list"
cp -a "$host/." "$root/"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/etc/cloud/cloud.cfg.d"
cp -a "$here/rootfs/." "$root/"
chown -R 0:0 "$root/etc/cloud" "$root/usr/sbin/ppe-init" "$root/usr/sbin/ppe-power"
cp "$bootstrap" "$root/root/bootstrap.sh"
mount -t proc proc "$root/proc"
echo "ppe image: installing R, Open MPI and what they need"
chroot "$root" env PPE_IN_IMAGE=1 /bin/bash /root/bootstrap.sh

echo "ppe image: finishing"
for name in poweroff halt reboot shutdown; do ln -sf ppe-power "$root/usr/sbin/$name"; done
rm -rf "$root/root/bootstrap.sh" "$root/etc/resolv.conf" "$root/etc/dpkg/dpkg.cfg.d/ppe-image" \
  "$root/var/cache/apt/archives" "$root/debootstrap"
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/cloud"
