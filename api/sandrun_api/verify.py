"""`sandrun verify`: checks a receipt and what it speaks of, offline, and says what differs."""

import argparse
import hashlib
import os
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from sandrun_shared import receipts
from sandrun_shared.orders import SIZE_DIGITS, Order, encode_order
from sandrun_shared.paths import shown
from sandrun_shared.receipts import ListedOutput, Receipt, ReceiptError

PIECE = 1 << 20
MAX_RECEIPT = 64 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("receipt", help="a receipt, a status, or the text of a Sandrun-Receipt header; -")
    parser.add_argument("files", nargs="*", type=Path, help="outputs: files, folders, a downloaded archive")
    parser.add_argument("--worker", help="worker id that must have signed")
    parser.add_argument("--manifest", type=Path, help="the manifest that was sent")
    parser.add_argument(
        "--upload", type=Path, action="append", help="the archive or file that was sent; again for each file"
    )
    parser.add_argument("--stdout", type=Path, help="what the job printed, byte for byte")
    parser.add_argument("--stderr", type=Path, help="what it printed on stderr")


def run(arguments: argparse.Namespace) -> int:
    """Print one line for each thing checked; 0 if all of it holds, else 1."""
    report = Report()
    try:
        receipt = receipts.parse(_read(arguments.receipt))
        receipts.verify(receipt)
        _check(report, receipt, arguments)
    except ReceiptError as error:
        report.add(False, "the receipt", str(error))
    except OSError as error:
        report.add(False, str(error.filename), f"it cannot be read: {error.strerror}")
    return report.status


def _check(report: "Report", receipt: Receipt, arguments: argparse.Namespace) -> None:
    statement = receipt.statement
    if arguments.worker is None:
        report.add(True, f"signed by {statement.worker_id}, whoever that is (--worker tells)")
    else:
        same = arguments.worker == statement.worker_id
        report.add(same, f"signed by {statement.worker_id}", f"not by {arguments.worker}")
    report.add(True, f"says: {statement.verdict.value}, exit code {statement.exit_code}")
    for name, path, wanted in (
        ("stdout", arguments.stdout, statement.stdout_sha256),
        ("stderr", arguments.stderr, statement.stderr_sha256),
    ):
        if path is not None:
            report.add(_sha256(path) == wanted, f"{path} as {name}", "its SHA-256 is another")
    if arguments.upload:
        report.add(_is_upload(arguments.upload, statement.upload_sha256), "the upload", "it is another one")
    if arguments.manifest is not None:
        _check_manifest(report, arguments.manifest, statement)
    for path in arguments.files:
        _check_output(report, receipt, path)


class Report:
    """What was found, line by line."""

    def __init__(self) -> None:
        self.status = 0

    def add(self, holds: bool, what: str, but: str = "") -> None:
        """One line; `but` says what is wrong when it does not hold."""
        if not holds:
            self.status = 1
        word, rest = ("ok     ", "") if holds else ("DIFFERS", f": {shown(but)}")
        print(f"{word} {shown(what)}{rest}")


def _read(name: str) -> bytes:
    def bounded(file: IO[bytes]) -> bytes:
        data = file.read(MAX_RECEIPT + 1)
        if len(data) > MAX_RECEIPT:
            raise ReceiptError(f"a receipt has at most {MAX_RECEIPT} bytes")
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


def _is_upload(paths: list[Path], wanted: str) -> bool:
    """Whether this was sent: one archive as it is, or single files one after the other."""
    if len(paths) == 1 and _sha256(paths[0]) == wanted:
        return True

    def bundled(name_of: Callable[[Path], str]) -> Iterable[bytes]:
        for path in paths:
            yield b"%b\0%0*d\0" % (name_of(path).encode(), SIZE_DIGITS, path.stat().st_size)
            with path.open("rb") as file:
                yield from _pieces(file)

    return wanted in (_digest(bundled(lambda path: path.name)), _digest(bundled(Path.as_posix)))


def _check_manifest(report: Report, path: Path, statement: receipts.Statement) -> None:
    # Only here, because it takes half a second to load.
    from sandrun_api.errors import ApiError  # noqa: PLC0415
    from sandrun_api.jobs import manifest as manifests  # noqa: PLC0415

    try:
        manifest = manifests.parse(path.read_bytes())
        same = manifests.digest(manifest) == statement.manifest_sha256
        order = encode_order(
            Order(manifest.entrypoint, tuple(manifest.args), dict(manifest.env), tuple(manifest.outputs))
        )
    except (ApiError, ValueError):
        report.add(False, f"{path} as manifest", "it is not valid")
        return
    report.add(same, f"{path} as manifest", "it is another one")
    ran = hashlib.sha256(order).hexdigest() == statement.order_sha256
    stdin = None if manifest.stdin is None else hashlib.sha256(manifest.stdin.encode()).hexdigest()
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
