"""What a job requires to be installed: which installer, and the files that it gets of the upload."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from sandrun_api.admission.threads import Blocking, in_thread
from sandrun_api.errors import ApiError, bad_request
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.uploads import archives
from sandrun_api.uploads.contents import Bounds
from sandrun_api.uploads.documents import without_bom
from sandrun_api.uploads.receive import Upload
from sandrun_shared.jobs import Installer, UploadKind
from sandrun_shared.memfds import Memfd
from sandrun_shared.orders import SIZE_DIGITS, encode_bundle
from sandrun_shared.paths import PathError, clean, shown
from sandrun_shared.protocol import Description
from sandrun_shared.settings import Settings

FILE_BYTES = 2 << 20
_POINTER = "/requirements"
# Files in the same folder that the installer gets too: what a lock says is part of what is asked.
_LOCKS = {
    Installer.uv: (),
    Installer.npm: ("package-lock.json", "npm-shrinkwrap.json"),
    Installer.bundler: ("Gemfile.lock",),
}
_FIRST = {
    Installer.uv: "requirements.txt",
    Installer.npm: "package.json",
    Installer.bundler: "Gemfile",
}


@dataclass(frozen=True)
class Requirements:
    """What is to be installed: files in one bundle, under the names that the installer looks for."""

    installer: Installer
    bundle: bytes

    @property
    def held_bytes(self) -> int:
        """What keeping them costs, with the file that the executor gets."""
        return 2 * len(self.bundle)


def installer_of(manifest: Manifest, worker: Description, settings: Settings) -> Installer | None:
    """What installs a manifest's requirements, None if it has none. Raises ApiError (400) if nothing does."""
    if manifest.requirements is None:
        return None
    try:
        name = PurePosixPath(clean(manifest.requirements)).name
    except PathError as error:
        raise bad_request(f"The requirements' file {error}.", _POINTER) from None
    installer = next((which for which, first in _FIRST.items() if name == first), None)
    if installer is None and name.endswith(".txt"):
        installer = Installer.uv
    if installer is None:
        raise bad_request(
            "'requirements' names a file called package.json, Gemfile, or something that ends with .txt.",
            _POINTER,
        )
    if installer not in worker.installers:
        if not worker.installers and not settings.executor.package_hosts.strip():
            reason = (
                "This server installs no packages: its setting [executor] package_hosts is empty. "
                "Leave 'requirements' out and use an environment that has them."
            )
        else:
            reason = f"This server cannot install from a {_FIRST[installer]}: {installer.value} is not there."
        raise bad_request(reason, _POINTER)
    return installer


def _wanted(path: str, installer: Installer) -> dict[str, str]:
    """Names for the installer, by path in the upload."""
    folder = path.rpartition("/")[0]
    locks = {f"{folder}/{name}" if folder else name: name for name in _LOCKS[installer]}
    return {path: _FIRST[installer], **locks}


async def of_upload(
    manifest: Manifest,
    installer: Installer,
    upload: Upload,
    settings: Settings,
    blocking: Blocking,
    *,
    root: str = "",
) -> Requirements:
    """Read the files out of an upload, below the folder that is its root. Raises ApiError."""
    path = clean(manifest.requirements or "")
    if root:
        path = f"{root}/{path}"
    names = _wanted(path, installer)
    if path not in upload.contents.files:
        raise bad_request(f"The requirements' file '{shown(path)}' is not a file of the upload.", _POINTER)
    wanted = dict.fromkeys(names, FILE_BYTES)
    if upload.kind is UploadKind.bundle:
        files = _in_bundle(upload.memfd, wanted)
    else:
        limits = settings.limits
        bounds = Bounds(
            limits.disk_mb << 20, settings.api.archive_members, settings.api.archive_check_seconds
        )
        contents = await in_thread(upload.memfd, blocking, archives.check, upload.kind, bounds, wanted)
        files = contents.kept
    return _requirements(installer, path, names, files)


def _requirements(
    installer: Installer, path: str, names: Mapping[str, str], files: Mapping[str, bytes]
) -> Requirements:
    if path not in files:
        raise bad_request(f"The requirements' file '{shown(path)}' is not a plain file.", _POINTER)
    chosen = {name: without_bom(files[where]) for where, name in names.items() if where in files}
    for name, data in chosen.items():
        if len(data) > FILE_BYTES:
            raise ApiError(413, f"{name} has more than {FILE_BYTES >> 10} KiB.")
    return Requirements(installer, encode_bundle(chosen))


def _in_bundle(memfd: Memfd, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Files of a bundle by path; the last of each name, as unpacking has it (`orders.encode_bundle`)."""
    found: dict[str, bytes] = {}
    offset = 0
    while offset < memfd.size:
        head = memfd.read_at(offset, 4096 + SIZE_DIGITS + 2)
        path, size, _ = head.split(b"\0", 2)
        start = offset + len(path) + len(size) + 2
        offset = start + int(size)
        name = path.decode("utf-8", "surrogateescape")
        if name in wanted:
            found[name] = memfd.read_at(start, min(int(size), wanted[name] + 1))
    return found
