"""The examples for a closed group: by the program they are for where it is, by their structure everywhere."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest

from sandrun_shared.settings import Settings, networks

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / ".venv" / "tools" / "usr"  # what deploy/setup.sh --dev unpacks
EXAMPLES = ROOT / "deploy" / "examples"
NGINX = ("nginx-mtls.conf", "nginx-password.conf")
CADDY = ("Caddyfile-mtls", "Caddyfile-password")
PASSED_ON = {
    "nginx": [
        "access_log off",
        "error_log /dev/null crit",
        "proxy_request_buffering off",
        "proxy_buffering off",
        "proxy_set_header X-Forwarded-For $remote_addr",
        "proxy_set_header Upgrade $http_upgrade",
    ],
    "Caddyfile": ["respond @operators 404", "flush_interval -1", "reverse_proxy 127.0.0.1:8443 {"],
}
GUARDS = {
    "nginx-mtls.conf": ["ssl_verify_client on", "ssl_client_certificate /etc/ssl/certs/sandrun-group.pem"],
    "nginx-password.conf": [
        'auth_basic "Sandrun"',
        "auth_basic_user_file /etc/nginx/sandrun.users",
        'proxy_set_header Authorization ""',
    ],
    "Caddyfile-mtls": ["mode require_and_verify", "trusted_ca_cert_file /etc/caddy/sandrun-group.pem"],
    "Caddyfile-password": ["basicauth {", "header_up -Authorization"],
}


def program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ['PATH']}:{TOOLS}/bin:{TOOLS}/sbin") or ""


def statements(name: str) -> list[str]:
    """The directives, without comments. Raises AssertionError for a line that is not a directive, and for an open brace."""
    found = []
    depth = 0
    for line in (EXAMPLES / name).read_text().splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if name in NGINX:
            assert text.endswith((";", "{", "}")), line
        depth += text.endswith("{")
        depth -= text == "}"
        assert depth >= 0, line
        found.append(text.removesuffix(";"))
    assert depth == 0
    return found


@pytest.mark.parametrize("name", [*NGINX, *CADDY])
def test_structure(name: str) -> None:
    found = statements(name)
    kind = "nginx" if name in NGINX else "Caddyfile"
    for wanted in (*PASSED_ON[kind], *GUARDS[name]):
        assert found.count(wanted) == 1, wanted
    others = {line for other, lines in GUARDS.items() if other != name for line in lines}
    assert not others & set(found)


@pytest.mark.parametrize("name", NGINX)
def test_no_location_is_open(name: str) -> None:
    """What guards stands in the server, so that every location inherits it."""
    found = statements(name)
    first_location = next(place for place, line in enumerate(found) if line.startswith("location"))
    guards = [line for line in GUARDS[name] if not line.startswith("proxy_")]
    assert all(found.index(line) < first_location for line in guards)
    assert "satisfy any" not in found
    assert not [line for line in found if line.startswith("auth_basic off")]


@pytest.mark.parametrize("name", [*NGINX, *CADDY])
def test_the_settings_in_it_are_settings(name: str) -> None:
    lines = re.findall(r"^#   (.*)$", (EXAMPLES / name).read_text(), re.MULTILINE)
    said = "\n".join(line for line in lines if line.startswith(("[", "trusted")))
    settings = msgspec.convert(tomllib.loads(said), Settings)
    assert networks(settings.api.trusted_proxies, "api.trusted_proxies")


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A folder with a certificate and its key."""
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-subj", "/CN=x", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return tmp_path


def run(*command: str, home: Path) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not program("nginx"), reason="there is no nginx; the structure is checked")
@pytest.mark.parametrize("name", NGINX)
def test_nginx_takes_it(name: str, pki: Path) -> None:
    text = (EXAMPLES / name).read_text()
    for path, given in (
        ("/etc/ssl/certs/sandrun-group.pem", "cert.pem"),
        ("/etc/ssl/certs/sandrun.pem", "cert.pem"),
        ("/etc/ssl/private/sandrun.key", "key.pem"),
        ("/etc/nginx/sandrun.users", "users"),
    ):
        text = text.replace(path, str(pki / given))
    (pki / "users").write_text("member:x\n")
    text = text.replace("listen 443 ssl", f"listen unix:{pki}/a ssl").replace(
        "listen [::]:443 ssl", f"listen unix:{pki}/b ssl"
    )
    folders = "".join(
        f"{kind}_temp_path {pki}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = pki / "nginx.conf"
    config.write_text(f"pid {pki}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{folders}{text}}}\n")
    run(program("nginx"), "-t", "-p", str(pki), "-e", "stderr", "-c", str(config), home=pki)


@pytest.mark.skipif(not program("caddy"), reason="there is no caddy; the structure is checked")
@pytest.mark.parametrize("name", CADDY)
def test_caddy_takes_it(name: str, pki: Path) -> None:
    config = pki / "Caddyfile"
    text = (EXAMPLES / name).read_text()
    config.write_text(text.replace("/etc/caddy/sandrun-group.pem", str(pki / "cert.pem")))
    run(program("caddy"), "validate", "--adapter", "caddyfile", "--config", str(config), home=pki)
