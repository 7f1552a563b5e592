#!/bin/sh
# Makes a node's root file system: build.sh ROOT MIRROR HOSTFILES [BOOTSTRAP]; without bootstrap.sh the stock one. Run
# by image.py as root in a mount and PID namespace of its own, so that whatever is mounted or started here ends with
# it. Lines that begin with "ppe" are progress.
set -eu
root=$1 mirror=$2 host=$3 bootstrap=${4:-} here=$(dirname "$0")
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
cp -r --preserve=mode "$here/rootfs/." "$root/"
mount -t proc proc "$root/proc"
if [ -n "$bootstrap" ]; then
  cp "$bootstrap" "$root/root/bootstrap.sh"
  echo "ppe image: installing R, Open MPI and what they need"
  chroot "$root" env PPE_IN_IMAGE=1 /bin/bash /root/bootstrap.sh
else
  # What a cloud image of Debian's has and cloud-init, sshd and ppe-init need.
  echo "ppe image: installing cloud-init and sshd"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  chroot "$root" apt-get -q update
  chroot "$root" apt-get -q -y -o Dpkg::Options::=--force-confold install --no-install-recommends \
    cloud-init openssh-server sudo python3 iproute2 ca-certificates procps
  chroot "$root" apt-get clean
  rm -rf "$root/usr/sbin/policy-rc.d" "$root"/etc/ssh/ssh_host_* "$root"/var/lib/apt/lists/*
  : >"$root/etc/machine-id"
fi

echo "ppe image: finishing"
for name in poweroff halt reboot shutdown; do ln -sf ppe-power "$root/usr/sbin/$name"; done
for name in mount umount; do ln -sf ppe-mount "$root/usr/local/sbin/$name"; done
rm -rf "$root/root/bootstrap.sh" "$root/etc/resolv.conf" "$root/etc/dpkg/dpkg.cfg.d/ppe-image" \
  "$root/var/cache/apt/archives" "$root/debootstrap"
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/cloud"
