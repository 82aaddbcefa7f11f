#!/bin/bash
# Build the Debian package for this machine's Debian or Ubuntu release and architecture.
#   deploy/build-deb.sh [--wheels FOLDER] OUTPUT      prints the package's path; needs no root
# It installs what deploy/install.sh does; its scripts call it.
set -euo pipefail
umask 022

say() { printf 'build-deb: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

wheels=''
if [[ ${1-} == --wheels && $# -ge 2 ]]; then wheels=$2; shift 2; fi
[[ $# -eq 1 && $1 != -* ]] || die "usage: deploy/build-deb.sh [--wheels FOLDER] OUTPUT"
command -v dpkg-deb >/dev/null || die "needs dpkg-deb"
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
mkdir -p -- "$1"
output=$(cd -- "$1" && pwd -P)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/../pyproject.toml")
python=$(/usr/bin/python3 -c 'import sys; print("3.%d" % sys.version_info[1])')
machine=$(dpkg --print-architecture)

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
if [[ -z $wheels ]]; then
    wheels=$work/wheels
    "$here/wheels.sh" "$wheels"
fi
root=$work/root
share=$root/usr/lib/sandrun/deploy
mkdir -p "$share/systemd" "$root"/{DEBIAN,etc/sandrun,usr/bin} \
    "$root"/usr/lib/{systemd/system,sysusers.d,tmpfiles.d,sysctl.d} "$root/usr/share/doc/sandrun-server"
cp -- "$here"/systemd/sandrun* "$root/usr/lib/systemd/system/"
cp -- "$here/systemd/sysusers.conf" "$root/usr/lib/sysusers.d/sandrun.conf"
cp -- "$here/systemd/tmpfiles.conf" "$root/usr/lib/tmpfiles.d/sandrun.conf"
cp -- "$here/systemd/sysctl.conf" "$root/usr/lib/sysctl.d/sandrun.conf"
cp -- "$here/systemd/delegate-subgroup.conf" "$share/systemd/"
cp -- "$here/install.sh" "$share/"
cp -- "$here/sandrun.toml" "$root/etc/sandrun/"
cp -- "$here/../LICENSE" "$root/usr/share/doc/sandrun-server/copyright"
ln -s /opt/sandrun/current/api/bin/sandrun "$root/usr/bin/sandrun"

say "making the release"
id=$version-$(find "$wheels" "$root" "$here/release.sh" -type f -exec sha256sum {} + | cut -d ' ' -f 1 | sort | sha256sum | cut -c 1-12)
"$here/release.sh" "$wheels" "$share/release" "/opt/sandrun/releases/$id" >&2
"$here/install.sh" --documents "$share/release"
printf '%s\n' "$id" >"$share/release/id"

cat >"$root/DEBIAN/control" <<CONTROL
Package: sandrun-server
Version: $version
Architecture: $machine
Maintainer: The Sandrun maintainers <maintainers@sandrun.invalid>
Section: net
Priority: optional
Depends: libseccomp2, python3 (>= $python), python3 (<< 3.$((${python#3.} + 1))), systemd, util-linux
Recommends: nodejs, perl
Description: anonymous, ephemeral, sandboxed code execution over HTTP
 Code in, results out, then everything disappears: each job runs in a separate
 sandbox, in memory only. Two services: an HTTP server without privileges
 and a small root daemon that makes the sandboxes.
CONTROL
printf '/etc/sandrun/sandrun.toml\n' >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ]; then /usr/lib/sandrun/deploy/install.sh --packaged; fi
SCRIPT
cat >"$root/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = remove ]; then /usr/lib/sandrun/deploy/install.sh --packaged --uninstall; fi
SCRIPT
cat >"$root/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if [ "$1" = purge ]; then
    if getent passwd sandrun >/dev/null; then userdel sandrun; fi
    if getent group sandrun >/dev/null; then groupdel sandrun; fi
fi
SCRIPT
chmod 755 "$root"/DEBIAN/{postinst,prerm,postrm}
package=$output/sandrun-server_${version}_$machine.deb
dpkg-deb --root-owner-group -Zxz -z3 --build "$root" "$package" >&2
printf '%s\n' "$package"
