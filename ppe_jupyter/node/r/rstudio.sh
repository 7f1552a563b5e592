#!/bin/bash
# Installs RStudio Server on a node: rstudio.sh [URL SHA256], the release below or that Debian package. Nothing is
# started, nothing listens: rstudio.py starts it for the login user alone. Safe to repeat. Needs root, an apt source and
# a way to the download.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C
# Needs OpenSSL 3: Debian 12 and 13, Ubuntu 22.04 and 24.04. The sum is the one that repo2docker pins
# (github.com/jupyterhub/repo2docker, repo2docker/buildpacks/_r_base.py); it has none for arm64.
pinned=https://download2.rstudio.org/server/jammy/amd64/rstudio-server-2026.09.0-174-amd64.deb
url=${1:-$pinned}
sha256=${2:-168bc577ef2f68abab1ad2ed684e830da1d244618b25b69fd20448e60716c5ba}
# apt's own user cannot write to a folder of root's, and would say so.
patience=(-q -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30)

if [ -x /usr/lib/rstudio-server/bin/rserver ]; then
  echo "RStudio Server is there"
  exit
fi
if [ "$url" = $pinned ] && [ "$(dpkg --print-architecture)" != amd64 ]; then
  echo "no release for this architecture is known; set rstudio_url and rstudio_sha256" >&2
  exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
deb=$folder/rstudio-server.deb
if ! /usr/lib/apt/apt-helper "${patience[@]}" download-file "$url" "$deb" "SHA256:$sha256" >"$folder/log" 2>&1; then
  grep '^E:' "$folder/log" | head -n 2 >&2 || true
  echo "$url cannot be downloaded, or has another SHA-256 than $sha256" >&2
  exit 1
fi
# The package would start a service that listens on every address, and has root make keys that the user cannot read.
ln -sfn /dev/null /etc/systemd/system/rstudio-server.service
apt-get "${patience[@]}" update
apt-get "${patience[@]}" -y -o DPkg::Lock::Timeout=600 -o APT::Install-Recommends=false -o Dpkg::Use-Pty=0 install "$deb"
rm -f /var/lib/rstudio-server/secure-cookie-key /var/lib/rstudio-server/session-rpc-key
echo "RStudio Server is installed"
