"""`sandrun verify`: checks a receipt and what it speaks of, offline, and says what differs."""

import hashlib
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from sandrun_client.cli import terminal
from sandrun_shared import documents, manifests, receipts
from sandrun_shared.languages import BOM
from sandrun_shared.orders import Order, bundle_head, encode_order
from sandrun_shared.paths import shown
from sandrun_shared.receipts import ListedOutput, Receipt

PIECE = 1 << 20
MAX_RECEIPT = 64 << 20


@dataclass(frozen=True)
class Checked:
    """What a command line names: the receipt ("-" is standard input), and what to hold against it."""

    receipt: str
    files: tuple[Path, ...] = ()
    worker: str | None = None
    manifest: Path | None = None
    upload: tuple[Path, ...] = ()
    stdout: Path | None = None
    stderr: Path | None = None


class _Ordered(msgspec.Struct, frozen=True):
    """The part of a manifest that is the worker's order."""

    entrypoint: str
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    outputs: tuple[str, ...] = ()
    stdin: str | None = None


def run(given: Checked, *, as_json: bool = False) -> int:
    """Print one line for each thing checked, or one JSON document; 0 if all of it holds, else 1."""
    report = Report(as_json)
    try:
        receipt = receipts.parse(_read(given.receipt))
        receipts.verify(receipt)
        _check(report, receipt, given)
    except receipts.ReceiptError as error:
        report.add(False, "the receipt", str(error))
    except OSError as error:
        report.add(False, str(error.filename), f"it cannot be read: {error.strerror}")
    report.end()
    return report.status


def _check(report: "Report", receipt: Receipt, given: Checked) -> None:
    statement = receipt.statement
    if given.worker is None:
        report.add(True, f"signed by {statement.worker_id}, whose identity was not checked (--worker does)")
    else:
        same = given.worker == statement.worker_id
        report.add(same, f"signed by {statement.worker_id}", f"not by {given.worker}")
    report.add(True, f"says: {statement.verdict.value}, exit code {statement.exit_code}")
    for name, path, wanted in (
        ("stdout", given.stdout, statement.stdout_sha256),
        ("stderr", given.stderr, statement.stderr_sha256),
    ):
        if path is not None:
            report.add(_sha256(path) == wanted, f"{path} as {name}", "its SHA-256 is another")
    if given.upload:
        report.add(_is_upload(given.upload, statement.upload_sha256), "the upload", "it is another one")
    if given.manifest is not None:
        _check_manifest(report, given.manifest, statement)
    for path in given.files:
        _check_output(report, receipt, path)


class Report:
    """What was found, line by line or as one document."""

    def __init__(self, as_json: bool) -> None:
        self.status = 0
        self._as_json = as_json
        self._found: list[dict[str, Any]] = []

    def add(self, holds: bool, what: str, but: str = "") -> None:
        """One line; `but` says what is wrong when it does not hold."""
        if not holds:
            self.status = 1
        if self._as_json:
            self._found.append({"holds": holds, "what": what, "difference": None if holds else but})
            return
        word, rest = ("ok     ", "") if holds else ("DIFFERS", f": {shown(but)}")
        print(f"{word} {shown(what)}{rest}")

    def end(self) -> None:
        """Print the document, if one was asked for."""
        if self._as_json:
            terminal.print_json({"holds": not self.status, "checks": self._found})


def _read(name: str) -> bytes:
    def bounded(file: IO[bytes]) -> bytes:
        data = file.read(MAX_RECEIPT + 1)
        if len(data) > MAX_RECEIPT:
            raise receipts.ReceiptError(f"a receipt has at most {MAX_RECEIPT} bytes")
        return data

    if name == "-":
        return bounded(sys.stdin.buffer)
    with open(name, "rb") as file:
        return bounded(file)


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _pieces(file: IO[bytes]) -> Iterable[bytes]:
    return iter(lambda: file.read(PIECE), b"")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(_pieces(file))


def _is_upload(paths: tuple[Path, ...], wanted: str) -> bool:
    """Whether this was sent: one archive as it is, or single files one after the other."""
    if len(paths) == 1 and _sha256(paths[0]) == wanted:
        return True

    def bundled(name_of: Callable[[Path], str]) -> Iterable[bytes]:
        for path in paths:
            with path.open("rb") as file:
                yield bundle_head(name_of(path), os.fstat(file.fileno()).st_size)
                yield from _pieces(file)

    return wanted in (_digest(bundled(lambda path: path.name)), _digest(bundled(Path.as_posix)))


def _check_manifest(report: Report, path: Path, statement: receipts.Statement) -> None:
    try:
        manifest = json.loads(path.read_bytes().removeprefix(BOM), object_pairs_hook=documents.members)
        manifest = documents.without_nulls(manifest, manifests.DEFAULTS)
        ordered = msgspec.convert(manifest, _Ordered)
        if unknown := manifest.keys() - manifests.DEFAULTS.keys() - {"entrypoint"}:
            raise ValueError(f"it has the unknown field {min(unknown)!r}")
        same = manifests.digest(manifest) == statement.manifest_sha256
        order = encode_order(Order(ordered.entrypoint, ordered.args, ordered.env, ordered.outputs))
        stdin = None if ordered.stdin is None else hashlib.sha256(ordered.stdin.encode()).hexdigest()
    except (ValueError, RecursionError) as error:
        report.add(False, f"{path} as manifest", f"it is not valid: {error}")
        return
    report.add(same, f"{path} as manifest", "it is another one")
    ran = hashlib.sha256(order).hexdigest() == statement.order_sha256
    report.add(
        ran and stdin == statement.stdin_sha256,
        "what the worker was told to run",
        "it is not what the manifest says",
    )


def _check_output(report: Report, receipt: Receipt, path: Path) -> None:
    if path.is_dir():
        _check_folder(report, receipt, path)
    elif (item := _listed(receipt, path)) is not None:
        report.add(_sha256(path) == item.sha256, str(path), f"it is not the output {item.path}")
    elif path.name.endswith((".tar.gz", ".tgz")):
        _check_archive(report, receipt, path)
    elif receipt.outputs is None:
        report.add(False, str(path), "the receipt does not list the outputs; give the downloaded archive")
    else:
        digest = _sha256(path)
        same = next((item for item in receipt.outputs if item.sha256 == digest), None)
        report.add(
            same is not None,
            f"{path} as {same.path}" if same else str(path),
            "no output has this name or content",
        )


def _listed(receipt: Receipt, path: Path) -> ListedOutput | None:
    """The output whose whole path is the end of this one."""
    text = "/" + path.absolute().as_posix().lstrip("/")
    named = [item for item in receipt.outputs or () if text.endswith("/" + item.path)]
    return max(named, key=lambda item: len(item.path), default=None)


def _check_folder(report: Report, receipt: Receipt, folder: Path) -> None:
    if receipt.outputs is None:
        report.add(False, str(folder), "the receipt does not list the outputs; give the downloaded archive")
        return
    for item in receipt.outputs:
        path = folder / os.fsdecode(item.raw_path())
        there = path.is_file()
        but = "it is another file" if there else "it is missing"
        report.add(there and _sha256(path) == item.sha256, str(path), but)
    known = {os.fsdecode(item.raw_path()) for item in receipt.outputs}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in known:
            report.add(False, str(path), "the job left no such file")


def _check_archive(report: Report, receipt: Receipt, path: Path) -> None:
    listed: list[ListedOutput] = []
    try:
        with tarfile.open(path, "r|gz", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is None:
                    raise tarfile.TarError("a member is no file")
                raw = member.name.encode("utf-8", "surrogateescape")
                digest = _digest(_pieces(file))
                listed.append(ListedOutput.of_file(raw, member.size, digest, member.mode & 0o777))
    except (tarfile.TarError, EOFError, OSError) as error:
        report.add(False, str(path), f"it cannot be read: {error}")
        return
    if receipts.index_sha256(listed, receipt.statement.version) == receipt.statement.outputs_sha256:
        report.add(True, f"{path} with {len(listed)} outputs")
        return
    report.add(False, str(path), "its files are not the outputs")
    wanted = {item.path: item for item in receipt.outputs or ()}
    for item in listed if receipt.outputs is not None else ():
        signed = wanted.pop(item.path, None)
        if signed is None:
            report.add(False, f"{path}, {item.path}", "the job left no such file")
        elif signed.sha256 != item.sha256:
            report.add(False, f"{path}, {item.path}", "it is another file")
        elif signed.mode is not None and signed.mode != item.mode:
            report.add(False, f"{path}, {item.path}", f"it has mode {item.mode}, not {signed.mode}")
    for name in wanted:
        report.add(False, f"{path}, {name}", "it is missing")
