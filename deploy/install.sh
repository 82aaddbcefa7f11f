#!/bin/bash
# Install Sandrun as services of systemd on Debian 12, Debian 13 or Ubuntu 24.04, or upgrade them.
#   deploy/install.sh [--wheels FOLDER]     with FOLDER, filled by deploy/wheels.sh, no network is needed
#   deploy/install.sh --uninstall           removes everything except what it then lists
# Safe to run again at any time. An upgrade lets running jobs end; no connection is refused meanwhile.
set -euo pipefail
umask 022
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

readonly python=/usr/bin/python3 user=sandrun
readonly top=/opt/sandrun units=/etc/systemd/system config=/etc/sandrun/sandrun.toml
readonly unit_names=(sandrun.target sandrun-executor.socket sandrun-executor.service sandrun-api.service)
readonly enabled=(sandrun.target sandrun-executor.socket sandrun-executor.service sandrun-api.service)
readonly command=/usr/local/bin/sandrun
readonly subgroup=$units/sandrun-executor.service.d/10-delegate-subgroup.conf
readonly required=(libseccomp2 python3 python3-venv util-linux)
readonly languages=(nodejs perl)

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == "install ok installed" ]]; }

wheels='' task=install
# For deploy/build-deb.sh and the package's own scripts: the files are already in place, and dpkg removes
# them.
packaged='' documents=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --wheels) [[ $# -ge 2 ]] || die "--wheels needs a folder"; wheels=$2; shift ;;
        --uninstall) task=uninstall ;;
        --packaged) packaged=1 ;;
        --documents) [[ $# -ge 2 ]] || die "--documents needs a folder"; documents=$2; shift ;;
        *) die "unknown argument $1; usage: deploy/install.sh [--wheels FOLDER] | --uninstall" ;;
    esac
    shift
done
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)

install_packages() {
    local package missing=()
    for package in "${required[@]}" "${languages[@]}"; do
        installed "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if [[ -n $wheels ]]; then
        for package in "${required[@]}"; do
            installed "$package" || die "the package $package is missing, and --wheels means no network"
        done
        say "without these packages some jobs will not find their language: ${missing[*]}"
        return 0
    fi
    say "installing missing system packages with apt: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -qq --yes --no-install-recommends "${missing[@]}" >&2 </dev/null
}

put() { # SOURCE TARGET: copy unless it is the same already; notes a change
    [[ -f $2 && ! -L $2 ]] && cmp -s -- "$1" "$2" && return 0
    install -D -m 0644 -- "$1" "$2"
    changed=1
}

fingerprint() { # of all that a release is made of
    {
        "$python" -VV
        sha256sum "$here/release.sh" "$here"/requirements-{executor,api}.lock \
            "$wheels"/sandrun_{executor,server}-*.whl | cut -d ' ' -f 1
        (cd "$here" && find examples monitoring sandrun.toml ../docs/*.md -type f -exec sha256sum {} + | sort)
    } | sha256sum | cut -c 1-12
}

add_documents() { # FOLDER: what an operator reads and copies from
    mkdir -p "$1/share/docs"
    cp -- "$here"/../docs/{operators,configuration,environments,threat-model}.md "$1/share/docs/"
    cp -r -- "$here"/{examples,monitoring,sandrun.toml} "$here/../LICENSE" "$1/share/"
}

make_release() { # sets `release`
    local work
    if [[ -n $packaged ]]; then
        release=$top/releases/$(<"$here/release/id")
        [[ ! -d $release ]] || return 0
        work=$release.new
        rm -rf -- "$work"
        mkdir -p "$top/releases"
        cp -a -- "$here/release" "$work"
    else
        release=$top/releases/$(fingerprint)
        [[ ! -d $release ]] || return 0
        say "making $release"
        work=$release.new
        rm -rf -- "$work"
        mkdir -p "$work"
        "$here/release.sh" "$wheels" "$work" "$release" >&2
        add_documents "$work"
    fi
    # An interruption before this line leaves no incomplete release.
    mv -T -- "$work" "$release"
}

use_release() {
    [[ $(readlink "$top/current" || true) == "$release" ]] && return 0
    ln -sfn -- "$release" "$top/current.new"
    mv -T -- "$top/current.new" "$top/current"
    changed=1
}

remove_old_releases() {
    local folder
    for folder in "$top"/releases/*; do
        [[ $folder == "$release" ]] || rm -rf -- "$folder"
    done
}

copy_files() {
    local name
    for name in "${unit_names[@]}"; do put "$here/systemd/$name" "$units/$name"; done
    put "$here/systemd/sysusers.conf" /etc/sysusers.d/sandrun.conf
    put "$here/systemd/tmpfiles.conf" /etc/tmpfiles.d/sandrun.conf
    put "$here/systemd/sysctl.conf" /etc/sysctl.d/sandrun.conf
    # Replaced unless it was changed.
    if [[ ! -e $config ]] || cmp -s -- "$top/current/share/sandrun.toml" "$config"; then
        put "$here/sandrun.toml" "$config"
    fi
    mkdir -p "${command%/*}"
    ln -sfn -- "$top/current/api/bin/sandrun" "$command"
}

remove_files() { # what copy_files made but the settings; the package, too, puts its own in their place
    rm -f -- "${unit_names[@]/#/$units/}" /etc/{sysusers,tmpfiles,sysctl}.d/sandrun.conf
    [[ ! -L $command ]] || rm -f -- "$command"
}

keep_kernel_silent() { # about jobs, from now on; after a boot systemd-sysctl.service does it
    /usr/lib/systemd/systemd-sysctl sandrun.conf || say "not all of sandrun.conf in sysctl.d could be set: sudo sandrun doctor"
}

use_subgroup() {
    local version
    version=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    if [[ ${version:-0} -ge 254 ]]; then
        put "$here/systemd/delegate-subgroup.conf" "$subgroup"
    elif [[ -e $subgroup ]]; then
        rm -f -- "$subgroup"
    fi
}

address() { # of the server, as the settings say; a drop-in's environment may say otherwise
    "$top/current/api/bin/python" -I -c 'from sandrun_shared import settings
api = settings.load().api
print(f"{api.host} port {api.port}")'
}

start() {
    systemctl daemon-reload
    systemctl --quiet enable "${enabled[@]}"
    if [[ -z $changed ]] && systemctl --quiet is-active "${unit_names[@]}"; then
        say "nothing changed"
        return 0
    fi
    # The socket is not restarted, so systemd keeps accepting connections.
    systemctl start sandrun-executor.socket
    if systemctl --quiet is-active sandrun-api.service; then
        say "restarting; jobs that run may end first"
    fi
    systemctl restart sandrun.target
    # A target does not wait for its services; each reports itself when it serves.
    systemctl start sandrun-executor.service sandrun-api.service || report_failure
    say "serving on $(address)"
    say "for jobs with more packages: sudo sandrun env build --all (docs/environments.md)"
}

report_failure() {
    systemctl --no-pager --lines=15 status sandrun-executor.service sandrun-api.service >&2 || true
    die "the services do not work; sudo sandrun doctor says what this machine lacks"
}

install_all() {
    local running=1
    if [[ ! -d /run/systemd/system ]]; then
        [[ -n $packaged ]] || die "systemd does not run here; deploy/quickstart.sh works without it"
        running=''
    fi
    changed=''
    local work=''
    if [[ -z $packaged ]]; then
        command -v dpkg-query >/dev/null || die "needs Debian or Ubuntu"
        ! installed sandrun-server || die "the package sandrun-server is installed: upgrade or purge that"
        install_packages
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11"
        if [[ -z $wheels ]]; then
            work=$(mktemp -d)
            # shellcheck disable=SC2064 # the folder of now
            trap "rm -rf -- '$work'" EXIT
            wheels=$work
            "$here/wheels.sh" "$work"
        fi
        [[ -d $wheels ]] || die "there is no folder $wheels"
    fi
    mkdir -p "$top"
    # One at a time: a second run waits here for the first.
    exec {folder}<"$top"
    flock "$folder"
    make_release
    if [[ -n $packaged ]]; then remove_files; else copy_files; fi
    use_subgroup
    systemd-sysusers sandrun.conf
    systemd-tmpfiles --create sandrun.conf
    use_release
    if [[ -n $running ]]; then
        keep_kernel_silent
        start
    else
        systemctl --quiet enable "${enabled[@]}"
    fi
    remove_old_releases
}

uninstall_all() {
    if [[ -d /run/systemd/system ]]; then
        # SIGINT, because nobody waits for the jobs of a service that is being removed.
        systemctl kill --signal=INT --kill-whom=main sandrun-api.service 2>/dev/null || true
        systemctl stop "${unit_names[@]}" 2>/dev/null || true
    fi
    systemctl --quiet disable "${enabled[@]}" 2>/dev/null || true
    if [[ -z $packaged ]] && cmp -s -- "$top/current/share/sandrun.toml" "$config"; then rm -f -- "$config"; fi
    rm -f -- "$subgroup"
    rmdir --ignore-fail-on-non-empty "${subgroup%/*}" 2>/dev/null || true
    rm -rf -- "$top" /run/sandrun /var/lib/sandrun
    if [[ -z $packaged ]]; then
        remove_files
        [[ ! -d ${config%/*} ]] || rmdir --ignore-fail-on-non-empty "${config%/*}"
        ! getent passwd "$user" >/dev/null || userdel "$user"
        ! getent group "$user" >/dev/null || groupdel "$user"
    fi
    systemctl daemon-reload 2>/dev/null || true
    systemctl reset-failed "${unit_names[@]}" 2>/dev/null || true
    local left=() path
    for path in "${config%/*}" "${unit_names[@]/#/$units/}" "${unit_names[@]/%/.d}"; do
        [[ $path == /* ]] || path=$units/$path
        [[ ! -e $path ]] || left+=("$path")
    done
    if [[ -z $packaged && ${#left[@]} -gt 0 ]]; then say "kept, because it was changed here: ${left[*]}"; fi
    say "removed; what sysctl.d/sandrun.conf set stays until the machine starts again"
}

if [[ -n $documents ]]; then
    add_documents "$documents"
    exit 0
fi
[[ $EUID -eq 0 ]] || die "must run as root: sudo deploy/install.sh"
"${task}_all"
