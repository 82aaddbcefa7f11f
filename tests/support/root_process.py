"""The modules that the root process may load, in a fresh interpreter or in a daemon that ran jobs."""

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "executor"
# From the packages of the sandbox and of the helpers: constants, messages, system calls.
OF_THE_SANDBOX = {
    "sandrun_sandbox",
    "sandrun_sandbox.layout",
    "sandrun_sandbox.linux_unsafe",
    "sandrun_sandbox.messages",
}
OF_THE_HELPERS = {"sandrun_helpers", "sandrun_helpers.messages"}
# What reads what strangers write. `ssl` is missing here: asyncio imports it in every process, and nothing of
# ours uses it; so are `zlib`, `bz2` and `lzma`, which shutil imports, and `json` and `tomllib`, by which root
# writes receipts and reads the operator's files.
PARSERS = {
    "cgi",
    "configparser",
    "csv",
    "email",
    "ftplib",
    "gzip",
    "html",
    "http",
    "imaplib",
    "mailbox",
    "mimetypes",
    "multiprocessing",
    "pickle",
    "plistlib",
    "poplib",
    "shelve",
    "smtplib",
    "socketserver",
    "sqlite3",
    "tarfile",
    "telnetlib",
    "urllib.error",
    "urllib.request",
    "urllib.response",
    "urllib.robotparser",
    "wsgiref",
    "xml",
    "xmlrpc",
    "zipfile",
}


def wrong(modules: Iterable[str]) -> set[str]:
    """Select the modules that the root process must not load, and those of ours that it lacks."""
    names = set(modules)
    ours = {name for name in names if name.startswith("sandrun_")}
    expected = {name for name in ours if name.startswith(("sandrun_executor.", "sandrun_shared."))}
    expected |= (
        {"sandrun_executor", "sandrun_shared", "sandrun_executor.daemon"} | OF_THE_SANDBOX | OF_THE_HELPERS
    )
    parsers = {name for name in names if any(f"{name}.".startswith(f"{one}.") for one in PARSERS)}
    return parsers | (ours ^ expected)


def lines_of(modules: Iterable[str]) -> int:
    """Count the lines of code of these modules, without blank lines, comments and docstrings."""
    return sum(_lines(path) for path in map(_source, modules) if path.exists())


def _source(name: str) -> Path:
    path = FOLDER / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _lines(path: Path) -> int:
    source = path.read_text()
    prose = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in prose | {tokenize.ENDMARKER}:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.end_lineno:
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def loaded_by(*names: str) -> set[str]:
    """List all modules of a fresh interpreter that imported these."""
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
