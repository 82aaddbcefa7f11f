#!/bin/bash
# Build the test machine: Debian from its packages, systemd, pure cgroup v2; boot it once, save it running.
#   tests/vm/build.sh [PACKAGE...]      prints the folder that holds it; more packages make another machine
# $SANDRUN_VM_SUITE says which Debian: bookworm (12, the default) or trixie (13).
# Kept in $SANDRUN_VM_CACHE (/var/cache/sandrun-vm), by what it is made of: does nothing when it is there.
#   vmlinuz, initrd   Debian's kernel; busybox and the modules for the disk
#   base.raw          the root file system, ext4      ready.qcow2, state   what booting wrote; the running machine
set -euo pipefail
umask 022
exec 3>&1 1>&2 # of all that is said here only the folder is the answer
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
say() { printf 'vm: [%d s] %s\n' "$SECONDS" "$*" >&2; }
die() { say "$*"; exit 1; }

readonly base=(
    systemd systemd-sysv udev dbus libpam-systemd kmod procps iproute2 util-linux libcap2-bin ca-certificates
    python3 python3-venv libseccomp2 perl
)
suite=${SANDRUN_VM_SUITE:-bookworm}
packages=$(IFS=,; echo "${base[*]}${*:+,$(IFS=,; echo "$*")}")
[[ $EUID -eq 0 ]] || die "must run as root"
[[ $(uname -m) == x86_64 ]] || die "builds a machine for x86_64 only"

cache=${SANDRUN_VM_CACHE:-/var/cache/sandrun-vm}
mkdir -p -- "$cache" 2>/dev/null && [[ -w $cache ]] || cache=/tmp/sandrun-vm
mkdir -p -- "$cache"
key=$({ cat "$here"/{build.sh,agent.py,machine.py}; echo "$suite $packages"; } | sha256sum | cut -c 1-12)
image=$cache/machine-$key
# One at a time: a second run waits here for the first.
exec {lock}>"$cache/lock"
flock "$lock"
if [[ -s $image/state ]]; then
    touch "$image"
    echo "$image" >&3
    exit 0
fi

declare -A needed=(
    [qemu-system-x86_64]=qemu-system-x86 [qemu-img]=qemu-utils [mmdebstrap]=mmdebstrap
    [busybox]=busybox-static [mke2fs]=e2fsprogs [xz]=xz-utils
)
missing=()
[[ -s /usr/share/keyrings/debian-archive-keyring.gpg ]] || missing+=(debian-archive-keyring)
for command in "${!needed[@]}"; do
    command -v "$command" >/dev/null || missing+=("${needed[$command]}")
done
export DEBIAN_FRONTEND=noninteractive
command -v apt-get >/dev/null || die "builds on Debian or Ubuntu only"
apt=(apt-get -o DPkg::Lock::Timeout=300 -qq)
if [[ ${#missing[@]} -gt 0 ]]; then
    say "installing missing system packages with apt: ${missing[*]}"
    "${apt[@]}" update >&2
    "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >&2 </dev/null
fi

# Older machines of this kind are of no use any more.
find "$cache" -mindepth 1 -maxdepth 1 -name 'machine-*' -mtime +14 -exec rm -rf -- {} +
new=$image.new
rm -rf -- "$new" "$image"
mkdir -p "$new"
trap 'rm -rf -- "$new"' EXIT
trap 'exit 143' TERM HUP
root=$new/root

say "making the root file system"
# The host's own sources when it is the same Debian, its mirror when it is another. Else Debian's default one.
sources=()
host=$(. /etc/os-release && echo "${ID-} ${VERSION_CODENAME-}")
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [[ $host == debian\ * && -s $file ]] || continue
    if [[ $host == "debian $suite" ]]; then
        sources=("$file")
    else
        mirror=$(grep -oE -m 1 'https?://[^ ]+/debian/?( |$)' "$file" | head -n 1) && sources=("$mirror")
    fi
    break
done
# The kernel is unpacked, not installed: that would make an initramfs, slowly, that nothing uses.
fetch_kernel='cd "$1" && export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG &&
    kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: \(linux-image-[0-9][^ ]*\)/\1/p" | head -n 1) &&
    apt-get download -qq "$kernel" && mkdir unpacked && dpkg -x ./linux-image-*.deb unpacked && rm ./linux-image-*.deb'
# mmdebstrap needs a folder that its download user may reach. Its mounts are not the machine's: the tests that
# run meanwhile compare those.
unshare --mount --propagation private mmdebstrap --quiet --variant=minbase --mode=root --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='APT::Sandbox::User "root"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --customize-hook="$fetch_kernel" \
    "$suite" "$root" ${sources[@]+"${sources[@]}"} >&2

say "the kernel and its initrd"
cp -- "$root"/unpacked/boot/vmlinuz-* "$new/vmlinuz"
for folder in "$root"/unpacked/{,usr/}lib/modules; do # before and since Debian 13
    [[ ! -d $folder ]] || cp -a -- "$folder" "$root/usr/lib/"
done
rm -rf -- "$root/unpacked"
release=$(ls "$root/usr/lib/modules")
chroot "$root" depmod "$release"
initrd=$new/initrd.d
mkdir -p "$initrd"/{bin,dev,root}
cp -- "$(command -v busybox)" "$initrd/bin/busybox"
modules=()
while read -r path; do # in the order in which they need each other
    path=${path%.xz} # Debian 13 compresses them
    if [[ -f $root$path ]]; then cp -- "$root$path" "$initrd/"; else xz -dc -- "$root$path.xz" >"$initrd/${path##*/}"; fi
    modules+=("${path##*/}")
done < <(for name in virtio_pci virtio_blk; do chroot "$root" modprobe -S "$release" --show-depends "$name"; done |
    sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++')
cat >"$initrd/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
for module in ${modules[*]}; do /bin/busybox insmod /\$module; done
until [ -b /dev/vda ]; do /bin/busybox sleep 0.05; done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /sbin/init
INIT
chmod 755 "$initrd/init"
(cd "$initrd" && find . | busybox cpio -o -H newc 2>/dev/null) >"$new/initrd"
rm -rf -- "$initrd"

say "settings"
echo sandrun-test >"$root/etc/hostname"
echo '127.0.0.1 localhost sandrun-test' >"$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
: >"$root/etc/fstab"
install -D -m 755 "$here/agent.py" "$root/usr/local/lib/agent.py"
printf 'virtio_pci\nvirtio_console\n' >"$root/etc/modules-load.d/agent.conf"
cat >"$root/etc/systemd/system/agent.service" <<'UNIT'
[Unit]
Description=Agent of the test machine
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/bin/python3 -I -S /usr/local/lib/agent.py
Restart=always
RestartSec=200ms
KillMode=process
OOMPolicy=continue
TasksMax=infinity
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable agent.service
# What would only spend time in a machine that lives for minutes.
chroot "$root" systemctl --quiet mask serial-getty@ttyS0.service getty@tty1.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service \
    systemd-tmpfiles-clean.timer
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/test.conf"
chroot "$root" sh -c 'python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.*' >&2 || true
mke2fs -q -F -t ext4 -O ^has_journal -E lazy_itable_init=1,root_owner=0:0 -d "$root" "$new/base.raw" 8G
rm -rf -- "$root"

say "first boot"
qemu-img create -q -f qcow2 -b base.raw -F raw "$new/ready.qcow2"
python3 -I "$here/machine.py" --image "$new" save >&2
mv -T -- "$new" "$image"
say "made $image: $(du -sh "$image" | cut -f 1)"
echo "$image" >&3
