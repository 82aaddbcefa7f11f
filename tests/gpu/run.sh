#!/bin/bash
# Tells all there is to know of GPU jobs on a bare machine that has one, where Sandrun is not installed and
# nothing can be fetched:
#   tests/gpu/run.sh [FOLDER]     FOLDER holds wheels of the executor's lock and NVML's bindings (docs/gpu.md)
# Runs as root. Ends with the status of `doctor --gpu`.
set -uo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
wheels=${1-}
part() { printf '\n=== %s\n' "$*"; }

part machine
uname -a
id
cat /etc/os-release | head -2
part interpreters
python=/usr/bin/python3
ls -l "$python"
"$python" -VV || python=$(command -v python3)
part driver
ls -l /dev/nvidia* /dev/nvidia-caps 2>&1
grep nvidia /proc/devices
cat /proc/driver/nvidia/version /proc/driver/nvidia/params 2>&1 | head -40
ls /proc/driver/nvidia
grep nvidia /proc/self/mountinfo
ldconfig -p | grep -E 'libcuda|libnvidia-ml|libseccomp'
ls /usr/local/nvidia /usr/local/nvidia/lib64 2>&1 | head -60
part kernel
cat /proc/filesystems | grep -E 'overlay|cgroup|tmpfs' | tr '\n' ' '
grep -E 'cgroup' /proc/self/mountinfo
cat /sys/fs/cgroup/cgroup.controllers /proc/self/cgroup 2>&1
if ! grep -qE ' - cgroup2? ' /proc/self/mountinfo; then
    mkdir -p /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo "mounted cgroup2"
fi

part installation
# A copy that the unprivileged helper can read, wherever the checkout is.
source=/tmp/sandrun-source
rm -rf -- "$source" && mkdir -p "$source"
cp -r -- "$here/api" "$here/executor" "$here/shared" "$here/tests" "$source"
chmod -R a+rX "$source"
export PYTHONPATH=$source/api:$source/executor:$source/shared PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
if [[ -n $wheels ]]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target /tmp/sandrun-site "$wheels"/*.whl || exit 1
    chmod -R a+rX /tmp/sandrun-site
    PYTHONPATH=/tmp/sandrun-site:$PYTHONPATH
    if ! ldconfig -p | grep -q 'libseccomp\.so\.2' && [[ -e $wheels/libseccomp.so.2 ]]; then
        cp -- "$wheels/libseccomp.so.2" /usr/lib/ && ldconfig
    fi
fi
export SANDRUN_EXECUTOR__USER=nobody SANDRUN_EXECUTOR__GPU=true
part preflight
"$python" -P -m sandrun_executor --check
part "what NVML says to a helper without privileges"
(cd / && timeout 60 setpriv --reuid nobody --clear-groups -- "$python" -P -m sandrun_helpers.gpu_probe) | head -c 2000 | tr -c '[:print:]' ' '
echo
part "the job without a sandbox, as nobody"
"$python" -P -c 'from sandrun_admin.gpu_job import PROGRAM; print(PROGRAM)' >/tmp/sandrun-job.py
libraries=$(dirname -- "$(ldconfig -p | awk '/libcuda.so.1/ {print $NF; exit}')" 2>/dev/null)
[[ -e $libraries/libcuda.so.1 ]] || libraries=/usr/local/nvidia/lib64
trace=()
command -v strace >/dev/null && trace=(strace -f -qq -e trace=ioctl,openat,open,mknod,mknodat,mbind,set_mempolicy,socket -o /tmp/sandrun-strace)
(cd / && LD_LIBRARY_PATH=$libraries timeout 90 "${trace[@]}" setpriv --reuid nobody --clear-groups -- "$python" /tmp/sandrun-job.py)
echo "status $?"
if [[ -s /tmp/sandrun-strace ]]; then
    grep -oE 'ioctl\([0-9]+<?[^,]*, [^,)]*' /tmp/sandrun-strace | sed -E 's/ioctl\([0-9]+, //' | sort | uniq -c | sort -rn | head -80
    grep -E 'open' /tmp/sandrun-strace | grep -oE '"/(proc|sys|dev|etc|tmp|run)[^"]*".*= ' | sort | uniq -c | sort -rn | head -60
    [[ -z ${OUT-} ]] || cp /tmp/sandrun-strace "$OUT/strace.txt"
fi

part "doctor --gpu"
timeout 150 "$python" -P -c 'import sys; from sandrun_admin import gpu_check; sys.exit(gpu_check.run(None))'
status=$?
echo "status $status"
if [[ $status -ne 0 ]]; then
    part "layers switched off"
    timeout 240 "$python" -P "$source/tests/gpu/layers.py"
    dmesg 2>/dev/null | grep -iE "nvrm|nvidia|overlay" | tail -20
fi
exit "$status"
