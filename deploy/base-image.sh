#!/usr/bin/env bash
# Make a base image where no registry of images can be reached: Debian by debootstrap, with its own Python, imported into the engine under a name.
#
#   deploy/base-image.sh [NAME]      default ensemble-base:bookworm
#
# It needs root, debootstrap and a Docker engine. SUITE is Debian's release, MIRROR an archive other than debootstrap's own. Certificate authorities that this
# machine trusts beside Debian's come along: behind a proxy that opens connections, pip in the image would trust nobody otherwise.
set -euo pipefail

name=${1:-ensemble-base:bookworm}
suite=${SUITE:-bookworm}
own_authorities=/usr/local/share/ca-certificates

[ "$(id -u)" = 0 ] || { echo "base-image.sh: debootstrap wants root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "base-image.sh: debootstrap is not installed; on Debian: apt-get install debootstrap" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
arguments=("$suite" "$root")
if [ -n "${MIRROR:-}" ]; then
  arguments+=("$MIRROR")
fi
debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates "${arguments[@]}"
if find "$own_authorities" -name '*.crt' 2>/dev/null | grep -q .; then
  cp -- "$own_authorities"/*.crt "$root$own_authorities/"
  chroot "$root" update-ca-certificates
fi
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/cache/debconf/*-old

# Times and owners of the moment would make another image of the same files.
tar --create --directory="$root" --numeric-owner --sort=name . | docker import --change 'CMD ["python3"]' - "$name"
