#!/bin/bash
# Inside the test machine: install Sandrun, then check it as a service.
#   main.sh short|suites [FILE...]|service|full|rebooted      /src is the checkout; /given holds wheels/, site/ and perhaps a package
set -Eeuo pipefail
umask 022
mode=${1:?short, suites, service, full or rebooted}
shift
say() { printf '== [%d s] %s\n' "$SECONDS" "$*"; }

export SANDRUN_SYSTEM_MUST_WORK=1 SANDRUN_TEST_MACHINE=1 PYTHONDONTWRITEBYTECODE=1
# An environment of the tests' own, which finds their libraries and what is installed, not the checkout's code.
checks=/opt/checks
make_checks() {
    /usr/bin/python3 -m venv --without-pip "$checks"
    local lib
    lib=lib/$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')/site-packages
    printf '%s\n' /given/site /opt/sandrun/current/{api,executor}/"$lib" >"$checks/$lib/checks.pth"
    ln -s /opt/sandrun/current/api/bin/uv "$checks/bin/uv"  # an executor that a test starts looks for it next to its python
}
# In a separate unit, like the executor: with a delegated group, without the services' hardening.
check() { # FILE...: arguments of pytest
    systemd-run --quiet --pipe --wait --collect --unit sandrun-checks -p Delegate="cpu memory pids" \
        -p TasksMax=infinity -p OOMPolicy=continue -p LimitNOFILE=65536 --working-directory /src \
        -E SANDRUN_SYSTEM_MUST_WORK -E SANDRUN_TEST_MACHINE -E PYTHONDONTWRITEBYTECODE -E PATH \
        "$checks/bin/python" -P -m pytest -v -p no:cacheprovider --timeout 900 --durations 8 "$@"
}

settings() {
    local name
    for name in api executor; do
        mkdir -p "/etc/systemd/system/sandrun-$name.service.d"
        cat >"/etc/systemd/system/sandrun-$name.service.d/checks.conf" <<'CONF'
[Service]
Environment=SANDRUN_QUOTA__CONCURRENT_JOBS=0 SANDRUN_QUOTA__QUEUED_JOBS=0 SANDRUN_QUOTA__JOBS_PER_HOUR=0
Environment=SANDRUN_QUOTA__CPU_SECONDS_PER_MINUTE=0 SANDRUN_LIMITS__MEMORY_MB=96 SANDRUN_LIMITS__DISK_MB=16
Environment=SANDRUN_EXECUTOR__SLOTS=4 SANDRUN_EXECUTOR__PARKED=1
CONF
    done
}

install_project() {
    local package=(/given/*.deb)
    settings
    if [[ $mode == @(short|service|suites) && -f ${package[0]} ]]; then
        say "installing the package, which holds the environments ready-made"
        dpkg -i "${package[0]}"
    else
        say "installing with deploy/install.sh"
        /src/deploy/install.sh --wheels /given/wheels
    fi
    make_checks
    systemctl is-active sandrun.target sandrun-executor.socket sandrun-executor.service sandrun-api.service
}

complain() {
    say "failed; what the machine says"
    systemctl --no-pager --lines 0 status 'sandrun*' || true
    journalctl --boot --no-pager -o short-monotonic -u 'sandrun*' | tail -n 60 || true
}
trap complain ERR

guest=tests/vm/guest
# Left out is what installs from a package index, and clients, to which kernel and supervisor are all one.
readonly left_out=(adapters client command_line environment_packages environments examples mcp quickstart streamlit)
suites() { # FILE...: all but those left out without
    local files=("$@") name
    if [[ $# -eq 0 ]]; then
        files=($guest/test_additions.py tests/security tests/system)
        for name in "${left_out[@]}"; do files+=(--ignore "tests/system/test_$name.py"); done
    fi
    say "the system and security suites"
    check "${files[@]}"
}

case $mode in
    short)
        install_project
        say "the services, a job of each verdict, cgroup v2, crashes and stops"
        check $guest/test_{units,verdicts,kernel_log}.py tests/system/test_cgroups.py $guest/test_life.py
        ;;
    service | full)
        install_project
        say "the services, a job of each verdict, crashes and stops, an upgrade while jobs run"
        check $guest/test_{kernel_log,life,units,upgrade,verdicts}.py tests/system/test_cgroups.py
        [[ $mode == service ]] || suites
        ;;
    suites)
        install_project
        suites "$@"
        ;;
    rebooted)
        say "after a reboot, and taken away"
        systemctl is-system-running --wait || systemctl --failed  # until it has booted
        check $guest/test_units.py $guest/test_verdicts.py $guest/test_removal.py
        ;;
esac
say "done"
