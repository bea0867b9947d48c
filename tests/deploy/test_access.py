"""The shipped proxy in front of two webservers: who gets through to which, and what never does."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
LAUNCH = """mutation {
  launchRun(executionParams: {
    mode: "default", runConfigData: {},
    selector: {repositoryName: "__repository__", repositoryLocationName: "gridlake", jobName: "raw_layer"}
  }) { __typename }
}"""
PASSWORDS = {"operator": "turns-it", "visitor": "looks-on"}

pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="nginx (Debian's nginx-light) or openssl is not installed"
)


@dataclass
class Proxy:
    port: int
    seen: dict[str, list[tuple[str, dict[str, str]]]] = field(default_factory=lambda: {"editors": [], "viewers": []})

    def ask(
        self, path: str = "/", user: str = "", password: str | None = None, verb: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, str]:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=ssl._create_unverified_context(), timeout=10)
        if user:
            word = PASSWORDS[user] if password is None else password
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()
        connection.request(verb, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        return answer.status, text

    def graphql(self, query: str, user: str) -> Any:
        body = json.dumps({"query": query}).encode()
        status, text = self.ask("/graphql", user=user, verb="POST", body=body, **{"Content-Type": "application/json"})
        assert status == 200, text
        return json.loads(text)

    def raw(self, request: bytes) -> bytes:
        """Sends bytes as they are: a client that keeps no rules."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as plain:
            context = ssl._create_unverified_context()
            with context.wrap_socket(plain) as connection:
                connection.sendall(request)
                connection.settimeout(3)
                try:
                    return connection.recv(65536)
                except TimeoutError:
                    return b""


@contextmanager
def proxied(folder: Path, upstreams: dict[str, int]) -> Iterator[int]:
    """nginx with the shipped files; only where it listens, where the webservers are and where it may write is this machine's."""
    port = free_port()
    for name in ("nginx.conf", "roles.conf"):
        text = (ROOT / "deploy" / "access" / name).read_text(encoding="utf-8")
        text = text.replace("listen 8443 ssl", f"listen 127.0.0.1:{port} ssl").replace("/tmp/", f"{folder}/")
        (folder / name).write_text(text.replace("/dev/stdout", f"{folder}/access.log"), encoding="utf-8")
    there = "".join(f"upstream {name} {{ server 127.0.0.1:{at}; }}\n" for name, at in upstreams.items())
    (folder / "upstreams.conf").write_text(there, encoding="utf-8")
    hashes = [f"{u}:{_hash(p)}" for u, p in PASSWORDS.items()]
    (folder / "users").write_text("\n".join(hashes) + "\n", encoding="utf-8")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=gridlake"]
    subprocess.run([*made, "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], check=True, capture_output=True)
    assert NGINX is not None
    command = [NGINX, "-c", str(folder / "nginx.conf"), "-g", "daemon off; user root;"]
    folder.chmod(0o755)
    with (folder / "nginx.log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(100):
            assert running.poll() is None, (folder / "nginx.log").read_text()
            with socket.socket() as knocking:
                if knocking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        running.terminate()
        running.wait(10)


def _hash(password: str) -> str:
    return subprocess.run(["openssl", "passwd", "-apr1", password], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    servers: dict[str, ThreadingHTTPServer] = {}
    seen: dict[str, list[tuple[str, dict[str, str]]]] = {"editors": [], "viewers": []}
    for role in seen:
        servers[role] = ThreadingHTTPServer(("127.0.0.1", 0), _webserver(role, seen[role]))
        threading.Thread(target=servers[role].serve_forever, daemon=True).start()
    with proxied(tmp_path_factory.mktemp("proxy"), {role: s.server_port for role, s in servers.items()}) as port:
        yield Proxy(port, seen)
    for server in servers.values():
        server.shutdown()


def _webserver(role: str, seen: list[tuple[str, dict[str, str]]]) -> type[BaseHTTPRequestHandler]:
    class Webserver(BaseHTTPRequestHandler):
        def log_message(self, *told: object) -> None:
            pass

        def answer(self) -> None:
            seen.append((f"{self.command} {self.path}", {k.lower(): v for k, v in self.headers.items()}))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(role.encode())

        do_GET = do_POST = do_PUT = do_OPTIONS = do_HEAD = answer  # noqa: N815

    return Webserver


TRICKS = [
    "/graphql",
    "//graphql",
    "/./graphql",
    "/x/../graphql",
    "/%2e%2e/graphql",
    "/%2fgraphql",
    "/graphql%00",
    "/server_info",
    "/report_asset_materialization/raw/prices",
    "/logs/../graphql",
    "/.well-known/x",
    "/;/graphql",
    "/graphql?x=//admin",
]


@pytest.mark.parametrize("path", TRICKS)
@pytest.mark.parametrize("verb", ["GET", "POST", "OPTIONS", "HEAD", "PUT"])
def test_no_request_without_credentials_reaches_a_webserver(proxy: Proxy, path: str, verb: str):
    before = sum(map(len, proxy.seen.values()))
    assert proxy.ask(path, verb=verb)[0] in (400, 401, 405)
    assert proxy.ask(path, user="operator", password="guess", verb=verb)[0] in (400, 401, 405)
    assert proxy.ask(path, verb=verb, **{"X-Forwarded-User": "operator", "X-Original-URL": "/"})[0] in (400, 401, 405)
    assert sum(map(len, proxy.seen.values())) == before


@pytest.mark.parametrize(
    "request_lines",
    [
        b"GET http://127.0.0.1/graphql HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /graphql HTTP/1.0\r\n\r\n",
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /graphql HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT 127.0.0.1:3000 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Basic\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\nHost: x\r\nAuthorization : Basic b3BlcmF0b3I6dHVybnMtaXQ=\r\n\r\n",
    ],
    ids=["absolute", "http 1.0", "smuggled", "websocket", "connect", "half a header", "blank before colon"],
)
def test_a_client_that_keeps_no_rules_gets_nowhere_either(proxy: Proxy, request_lines: bytes):
    before = sum(map(len, proxy.seen.values()))
    status = proxy.raw(request_lines).split(b"\r\n", 1)[0]
    assert not status or status.split()[1] in (b"400", b"401", b"405"), status
    assert sum(map(len, proxy.seen.values())) == before


def test_plain_http_is_refused(proxy: Proxy):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize("path", ["/", *TRICKS])
def test_a_viewer_reaches_only_the_read_only_webserver(proxy: Proxy, path: str):
    before = len(proxy.seen["editors"])
    for verb in ("GET", "POST"):
        for claimed in ({}, {"X-Forwarded-User": "operator"}, {"X-Remote-User": "operator", "Host": "editors"}):
            status, text = proxy.ask(path, user="visitor", verb=verb, **claimed)
            assert status in (200, 400)
            assert "editors" not in text
    assert len(proxy.seen["editors"]) == before


def test_an_editor_reaches_the_webserver_which_learns_the_name_and_not_the_password(proxy: Proxy):
    assert proxy.ask("/graphql", user="operator", verb="POST", **{"X-Forwarded-User": "somebody else"}) == (200, "editors")
    request, headers = proxy.seen["editors"][-1]
    assert request == "POST /graphql"
    assert headers["x-forwarded-user"] == "operator"
    assert "authorization" not in headers


def test_a_page_of_another_origin_cannot_make_a_browser_send_changes(proxy: Proxy):
    here = f"127.0.0.1:{proxy.port}"
    assert proxy.ask("/graphql", user="operator", verb="POST", Origin=f"https://{here}")[0] == 200
    for origin in ("https://elsewhere.example", f"http://{here}", f"https://{here}.elsewhere.example", "null", "https://"):
        assert proxy.ask("/graphql", user="operator", verb="POST", Origin=origin)[0] == 403, origin


@pytest.mark.slow
def test_dagsters_own_webserver_refuses_a_viewers_changes(tmp_path: Path, copied_site: Path):
    import os

    from lakehouse.flow.setup import write_dagster_home
    from lakehouse.site import load_site

    dagster = write_dagster_home(load_site(copied_site))
    port = free_port()
    environment = os.environ | {"GRIDLAKE_HOME": str(copied_site), "DAGSTER_HOME": str(dagster), "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "dagster_webserver",
        "--read-only",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-w",
        str(ROOT / "workspace.yaml"),
    ]
    with (tmp_path / "webserver.log").open("wb") as log:
        webserver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    proxy_folder = tmp_path / "proxy"
    proxy_folder.mkdir()
    try:
        for _ in range(600):
            assert webserver.poll() is None, (tmp_path / "webserver.log").read_text()
            with socket.socket() as knocking:
                if knocking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        with proxied(proxy_folder, {"viewers": port, "editors": free_port()}) as front:
            proxy = Proxy(front)
            assert proxy.ask("/server_info")[0] == 401
            status, told = proxy.ask("/server_info", user="visitor")
            assert status == 200
            assert "dagster_webserver_version" in json.loads(told)
            refused = proxy.graphql(LAUNCH, user="visitor")
            assert refused["data"]["launchRun"]["__typename"] == "UnauthorizedError"
            assert proxy.graphql("{ version }", user="visitor")["data"]["version"]
    finally:
        webserver.terminate()
        webserver.wait(20)
