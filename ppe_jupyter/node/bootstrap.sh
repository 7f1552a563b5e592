#!/bin/bash
# Makes a stock Debian 12 or 13 or Ubuntu 24.04 machine (same package names) into a node: R with Rmpi and snow, Open
# MPI, mpi4py, what install.packages needs to compile. The same script runs from an instance's user data (at most
# 16 KB of it, gzipped) and in the chroot where the local cloud's image is built (PPE_IN_IMAGE=1: nothing is started,
# caches and host keys are removed). Safe to repeat. Needs root and an apt source; knows nothing of clusters: that is
# setup.py's part.
set -euo pipefail

# Ubuntu's needrestart would ask, or restart sshd under setup.py.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C
in_image=${PPE_IN_IMAGE:-}
done_mark=/var/lib/ppe-node/bootstrapped

packages=(
  # r-base-core alone lacks MASS, survival and boot, which are r-recommended.
  r-base-core r-recommended
  r-cran-rmpi r-cran-snow r-cran-foreach r-cran-doparallel r-cran-dorng
  r-cran-future r-cran-future.apply r-cran-progressr r-cran-repr r-cran-svglite
  # Plots as most draw them, and integers of 64 bits: 20 MB with what they need.
  r-cran-ggplot2 r-cran-bit64
  # Compilers and headers for install.packages: what r-base-dev brings, without Debian's packaging tools.
  gcc g++ gfortran make pkg-config libc6-dev libblas-dev liblapack-dev
  zlib1g-dev libbz2-dev liblzma-dev libpcre2-dev libreadline-dev libpng-dev libjpeg-dev libcurl4-openssl-dev libssl-dev
  # Rmpi loads libmpi.so at run time, and only libopenmpi-dev has that name.
  openmpi-bin libopenmpi-dev
  # 8 to 11 times faster than the reference BLAS.
  libopenblas0-pthread
  python3 python3-mpi4py python3-numpy python3-pandas
  # Functions sent to ranks; the cluster's virtual environment; the user's R library on every node.
  python3-cloudpickle python3-venv rsync
  openssh-server openssh-client cloud-init sudo ca-certificates locales iproute2 procps fonts-dejavu-core
  # Volumes: file systems to make, and who uses one.
  e2fsprogs xfsprogs psmisc mdadm
  # The way out of workers that have none of their own.
  tinyproxy-bin
  # Which MPI call a rank waits in.
  elfutils
)

apt=(apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o APT::Install-Recommends=false
  -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)

say() { echo "ppe bootstrap: $*"; }

slim_image() {
  # An image needs neither manual pages nor translations, and no fsync for each file.
  cat >/etc/dpkg/dpkg.cfg.d/ppe-image <<'END'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
path-exclude=/usr/share/lintian/*
force-unsafe-io
END
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
}

update_lists() {
  # The lock of the package lists has no time-out of its own, and a freshly booted machine's timers hold it.
  local try
  for try in 1 2 3 4 5 6 7 8 9 10; do
    "${apt[@]}" update && return
    say "apt-get update failed (try $try)"
    sleep 6
  done
  say "apt-get update failed: does this machine reach its apt sources?" >&2
  return 1
}

install_packages() {
  if dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | sort -u | grep -qvx installed ||
    ! dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
    update_lists
    "${apt[@]}" install "${packages[@]}"
  fi
}

set_locale() {
  # en_US rather than C: it is how R sorts on the scientist's own machine.
  if ! locale -a | grep -qix 'en_US\.utf-\?8'; then
    grep -qx 'en_US.UTF-8 UTF-8' /etc/locale.gen || echo 'en_US.UTF-8 UTF-8' >>/etc/locale.gen
    localedef -i en_US -f UTF-8 en_US.UTF-8
  fi
  echo 'LANG=en_US.UTF-8' >/etc/default/locale
}

empty_image() {
  # Each instance makes its own host keys and machine id.
  rm -f /etc/ssh/ssh_host_*
  : >/etc/machine-id
  "${apt[@]}" clean
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/apt/* /var/log/dpkg.log
}

check() {
  # A package that installed but does not load is better known here than in a notebook.
  Rscript --vanilla -e 'stopifnot(requireNamespace("snow"), requireNamespace("survival"), nzchar(system.file(package = "Rmpi")))'
  python3 -c 'import numpy, pandas, mpi4py, cloudpickle'
  mpirun --version | head -n 1
}

if [ -n "$in_image" ]; then slim_image; fi
say "installing ${#packages[@]} packages"
install_packages
set_locale
check
if [ -n "$in_image" ]; then empty_image; fi
mkdir -p "${done_mark%/*}"
date -u +%FT%TZ >"$done_mark"
say "done"
