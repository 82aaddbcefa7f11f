"""Package registries on loopback addresses of this machine, with test names and certificates."""

import base64
import hashlib
import io
import json
import os
import ssl
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

NAMES = ("registry.test", "other.test", "private.test")
_EXTENSIONS = "basicConstraints=critical,{}\nsubjectAltName={}\n"


def address(number: int) -> str:
    """Choose a loopback address that no other test run uses."""
    return f"127.{64 + (os.getpid() >> 8) % 64}.{os.getpid() & 255}.{number}"


def wheel(name: str, version: str, files: dict[str, str], scripts: Iterable[str] = ()) -> tuple[str, bytes]:
    """Build a wheel of these files; returns its name and bytes."""
    info = f"{name}-{version}.dist-info"
    entries = "".join(f"{line}\n" for line in scripts)
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **({f"{info}/entry_points.txt": "[console_scripts]\n" + entries} if entries else {}),
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return f"{name}-{version}-py3-none-any.whl", buffer.getvalue()


# An in-tree build backend, which runs PROGRAM while the package is built.
_BACKEND = """
import zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    said = []
    exec(open('program.py').read(), {'say': said.append})
    name, version = NAME, VERSION
    info = f'{name}-{version}.dist-info'
    with zipfile.ZipFile(f'{wheel_directory}/{name}-{version}-py3-none-any.whl', 'w') as archive:
        archive.writestr(f'{name}.py', f'SAID = {said!r}')
        archive.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')
        archive.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        archive.writestr(f'{info}/RECORD', '')
    return f'{name}-{version}-py3-none-any.whl'
"""


def _tar(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def sdist(name: str, version: str, program: str) -> tuple[str, bytes]:
    """Build a source distribution whose build runs the program; what this passes to `say` becomes SAID."""
    top = f"{name}-{version}"
    backend = _BACKEND.replace("NAME, VERSION", f"{name!r}, {version!r}")
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "pyproject.toml": f'{build}[project]\nname = "{name}"\nversion = "{version}"\n',
        "backend.py": backend,
        "program.py": program,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    return f"{top}.tar.gz", _tar({f"{top}/{path}": text for path, text in files.items()})


class Registry:
    """A server that records requests; a context manager."""

    def __init__(self, folder: Path, listen: str) -> None:
        self.answers: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.authorizations: list[str] = []
        self.hold = threading.Event()  # answers below /held/ wait for it
        self.held = threading.Event()  # somebody waits
        self.address = listen
        self.certificate = _certificates(folder)
        self._wheels: dict[str, dict[str, str]] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry._answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((listen, 443), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
        # The handshake is the handler's, in its own thread: who never speaks holds up nobody.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> "Registry":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, file: tuple[str, bytes], *, digest: str = "", folder: str = "/files") -> str:
        """Offer a file of a Python package; the line that requires it with its hash."""
        name, data = file
        package, version = name.removesuffix(".tar.gz").split("-")[:2]
        digest = digest or hashlib.sha256(data).hexdigest()
        path = f"{folder}/{name}"
        self.answers[path] = ("application/octet-stream", data)
        links = self._wheels.setdefault(package, {})
        links[name] = f'<a href="{path}#sha256={digest}">{name}</a>'
        self.answers[f"/simple/{package}/"] = ("text/html", "<br>".join(links.values()).encode())
        return f"{package}=={version} --hash=sha256:{digest}\n"

    def add_npm(self, name: str, files: dict[str, str], dependencies: dict[str, str] | None = None) -> None:
        """Offer a package for Node."""
        package = {"name": name, "version": "1.0.0", "main": "index.js", "dependencies": dependencies or {}}
        data = _tar(
            {f"package/{path}": text for path, text in files.items()}
            | {"package/package.json": json.dumps(package)}
        )
        path = f"/npm/{name}/-/{name}-1.0.0.tgz"
        digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
        dist = {"tarball": f"https://registry.test{path}", "integrity": f"sha512-{digest}"}
        entry = {
            "name": name,
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": {**package, "dist": dist}},
        }
        self.answers[path] = ("application/octet-stream", data)
        self.answers[f"/npm/{name}"] = ("application/json", json.dumps(entry).encode())

    def add_gem(self, folder: Path, name: str, code: str) -> None:
        """Offer a package for Ruby, built with the gem command in an empty folder."""
        (folder / "lib").mkdir()
        (folder / "lib" / f"{name}.rb").write_text(code)
        fields = {"name": name, "version": "1.0.0", "summary": "test", "authors": ["test"], "license": "MIT"}
        lines = [f"s.{key} = {json.dumps(value)}" for key, value in fields.items() if key != "license"]
        lines.append(f's.files = ["lib/{name}.rb"]')
        (folder / f"{name}.gemspec").write_text(
            "Gem::Specification.new do |s|\n" + "\n".join(lines) + "\nend\n"
        )
        command = ["gem", "build", "--quiet", f"{name}.gemspec"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        data = (folder / f"{name}-1.0.0.gem").read_bytes()
        info = f"---\n1.0.0 |checksum:{hashlib.sha256(data).hexdigest()}\n".encode()
        known = (
            f"created_at: 2024-01-01T00:00:00Z\n---\n{name} 1.0.0 {hashlib.md5(info).hexdigest()}\n".encode()
        )
        self.answers["/versions"] = ("text/plain", known)
        self.answers[f"/info/{name}"] = ("text/plain", info)
        self.answers[f"/gems/{name}-1.0.0.gem"] = ("application/octet-stream", data)

    def count(self, part: str) -> int:
        """Count the requests whose path contains a part."""
        return sum(part in path for path in self.asked)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        self.asked.append(path)
        self.authorizations.append(request.headers.get("Authorization", ""))
        if path.startswith("/held/"):
            self.held.set()
            self.hold.wait(30)
        kind, data = self.answers.get(path, ("text/plain", b"no such thing\n"))
        request.send_response(200 if path in self.answers else 404)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command == "GET":
            try:
                request.wfile.write(data)
            except OSError:
                request.close_connection = True


def _certificates(folder: Path) -> Path:
    """Create an authority and a certificate for all names; returns the authority's file."""
    names = ",".join(f"DNS:{name}" for name in NAMES)
    (folder / "ca.ext").write_text(_EXTENSIONS.format("CA:TRUE", "DNS:authority.test"))
    (folder / "leaf.ext").write_text(_EXTENSIONS.format("CA:FALSE", names))
    for name, options in (
        ("ca", ["-signkey", "ca.key"]),
        ("leaf", ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]),
    ):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]
        request = ["openssl", "req", "-new", *key, "-subj", f"/CN={name}", "-out", f"{name}.csr"]
        sign = ["openssl", "x509", "-req", "-in", f"{name}.csr", "-days", "2", "-extfile", f"{name}.ext"]
        for command in (request, [*sign, *options, "-out", f"{name}.pem"]):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    return folder / "ca.pem"
