"""The table of installers, and which of them this machine has."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from sandrun_executor.packages.egress import PORT
from sandrun_executor.trusted_paths import find_uv
from sandrun_sandbox.layout import INSTALLED, PYTHON, SCRATCH, TEMPORARY, TOOLS
from sandrun_shared.environments import DEFAULT, PLACE
from sandrun_shared.jobs import Installer
from sandrun_shared.settings import Executor as Settings

_PROXY = f"http://127.0.0.1:{PORT}"
_CA = f"{TOOLS}/ca.pem"


@dataclass(frozen=True)
class Entry:
    """An installer: the program it needs, the interpreter it installs for, the file it installs from."""

    program: str
    interpreter: str
    file: str


TABLE: dict[Installer, Entry] = {
    Installer.uv: Entry("uv", "python3", "requirements.txt"),
    Installer.npm: Entry("/usr/bin/npm", "node", "package.json"),
    Installer.bundler: Entry("/usr/bin/bundle", "ruby", "Gemfile"),
}


def installed(interpreters: frozenset[str]) -> tuple[Installer, ...]:
    """Select the installers whose program and interpreter this machine has."""
    return tuple(
        installer
        for installer, entry in TABLE.items()
        if entry.interpreter in interpreters
        and (find_uv() if entry.program == "uv" else os.access(entry.program, os.X_OK))
    )


def tools(installer: Installer, settings: Settings) -> tuple[tuple[str, str], ...]:
    """List the files of the host that an installation sees: (name among the tools, path)."""
    found = (("ca.pem", settings.package_ca),) if os.path.isfile(settings.package_ca) else ()
    return (*found, ("uv", find_uv())) if installer is Installer.uv else found


def short(version: str) -> str:
    """ "3.11" of "3.11.2"."""
    return ".".join(version.split(".")[:2])


def variables_to_install(
    installer: Installer, settings: Settings, credentials: Collection[str]
) -> dict[str, str]:
    """Build the variables of an installation whose proxy has credentials for these hosts."""
    trusted = dict.fromkeys(("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), _CA)
    common = {
        "TMPDIR": TEMPORARY,
        **(trusted if os.path.isfile(settings.package_ca) else {}),
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _PROXY),
    }
    return common | _OWN[installer](settings, credentials)


def _for_proxy(url: str, credentials: Collection[str]) -> str:
    """A registry's URL for the installer: plain HTTP if the proxy adds credentials and TLS."""
    return "http" + url.removeprefix("https") if urlsplit(url).hostname in credentials else url


def _uv(settings: Settings, credentials: Collection[str]) -> dict[str, str]:
    own = {"UV_DEFAULT_INDEX": _for_proxy(settings.package_index_url, credentials)}
    return {
        "UV_COMPILE_BYTECODE": "1",  # the layer is read-only, so every job would compile again
        "UV_CACHE_DIR": f"{SCRATCH}/cache",
        "UV_LINK_MODE": "hardlink",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON": PYTHON,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_HTTP_TIMEOUT": "30",
        "UV_HTTP_RETRIES": "1",
        "UV_CONCURRENT_DOWNLOADS": "8",
        **(own if settings.package_index_url else {}),
    }


def _npm(settings: Settings, credentials: Collection[str]) -> dict[str, str]:
    own = {
        "npm_config_registry": _for_proxy(settings.package_npm_url, credentials),
        "npm_config_replace_registry_host": "always",
    }
    return {
        "npm_config_cache": f"{SCRATCH}/cache",
        "npm_config_fetch_retries": "1",
        "npm_config_loglevel": "warn",
        "npm_config_logs_max": "0",
        "npm_config_maxsockets": "8",
        **(own if settings.package_npm_url else {}),
    }


def _bundler(settings: Settings, credentials: Collection[str]) -> dict[str, str]:
    own = {"BUNDLE_MIRROR__ALL": _for_proxy(settings.package_gem_url, credentials)}
    return {
        "BUNDLE_PATH": f"{INSTALLED}/gems",
        "BUNDLE_USER_HOME": f"{SCRATCH}/bundle",
        "BUNDLE_SILENCE_ROOT_WARNING": "1",
        "BUNDLE_TIMEOUT": "30",
        **(own if settings.package_gem_url else {}),
    }


_OWN = {Installer.uv: _uv, Installer.npm: _npm, Installer.bundler: _bundler}


def variables_to_run(installer: Installer, version: str, environment: str) -> dict[str, str]:
    """Build the variables by which an interpreter finds the installed packages in an environment."""
    path = "/usr/bin:/bin" if environment == DEFAULT else f"{PLACE}/bin:/usr/bin:/bin"
    if installer is Installer.uv:
        folder = f"{INSTALLED}/lib/python{short(version)}/site-packages"
        # Python in an environment is a venv, which ignores the user's packages.
        base = {"PYTHONUSERBASE": INSTALLED} if environment == DEFAULT else {"PYTHONPATH": folder}
        return {**base, "PATH": f"{folder}/bin:{path}"}
    if installer is Installer.npm:
        return {"PATH": f"{INSTALLED}/node_modules/.bin:{path}"}
    gems = f"{INSTALLED}/gems/ruby/{short(version)}.0"
    return {
        "GEM_PATH": gems,
        "BUNDLE_GEMFILE": f"{INSTALLED}/Gemfile",
        "BUNDLE_PATH": f"{INSTALLED}/gems",
        "BUNDLE_FROZEN": "true",
        "PATH": f"{gems}/bin:{path}",
    }
