"""The proxy's configuration in the real nginx: who gets in, to which web server, with which requests."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[2] / "k8s/base/nginx.conf"
pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
QUERY = b'{"query": "mutation { x }"}'


class Upstream(BaseHTTPRequestHandler):
    """Says which web server it is, and what it was told of the user."""

    name = ""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer()

    def _answer(self) -> None:
        told = (
            f"{self.name} {self.headers.get('X-Forwarded-User')} {self.headers.get('Authorization')}".encode()
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None:
        return


def serve(name: str) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type(name, (Upstream,), {"name": name}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """nginx with the deployed configuration; only addresses, the certificate and paths are this machine's."""
    folder = tmp_path_factory.mktemp("proxy")
    folder.chmod(0o755)
    editor, viewer, port = serve("webserver"), serve("viewer"), free_port()
    users = "".join(
        f"{user}:{subprocess.run(['openssl', 'passwd', '-apr1', 'secret'], capture_output=True, text=True, check=True).stdout}"
        for user in ("editor-ann", "bob")
    )
    (folder / "htpasswd").write_text(users)
    text = CONFIGURATION.read_text().replace("/tmp/", f"{folder}/")
    for old, new in (
        ("server webserver:80;", f"server 127.0.0.1:{editor.server_address[1]};"),
        ("server viewer:80;", f"server 127.0.0.1:{viewer.server_address[1]};"),
        ("listen 8443 ssl;", f"listen 127.0.0.1:{port};"),
        ("    ssl_certificate /etc/proxy/tls/tls.crt;\n", ""),
        ("    ssl_certificate_key /etc/proxy/tls/tls.key;\n", ""),
        ("/etc/proxy/users/htpasswd", str(folder / "htpasswd")),
        ("access_log /dev/stdout;", "access_log off;"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    # Started by root, nginx would give its workers another user, who cannot read the test's folder.
    head = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(head + text)
    command = [
        "nginx",
        "-c",
        str(folder / "nginx.conf"),
        "-g",
        "daemon off;",
        "-e",
        str(folder / "error.log"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        yield port
        process.terminate()
    for server in (editor, viewer):
        server.shutdown()
        server.server_close()


def ask(
    port: int, method: str, path: str, *, user: str | None = "editor-ann", body: bytes = b"", **headers: str
) -> tuple[int, str]:
    """The status and the text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if user:
        sent["Authorization"] = "Basic " + base64.b64encode(f"{user}:secret".encode()).decode()
    connection.request(method, path, body or None, sent)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


@pytest.mark.parametrize("path", ["/", "/graphql", "/server_info"])
def test_nobody_gets_in_without_a_name(proxy: int, path: str) -> None:
    assert ask(proxy, "GET", path, user=None)[0] in (401, 405)
    assert ask(proxy, "POST", "/graphql", user=None, body=QUERY, Content_Type="application/json")[0] == 401


def test_editors_reach_the_server_that_can_change_things_and_others_the_one_that_cannot(proxy: int) -> None:
    json = {"Content_Type": "application/json"}
    assert ask(proxy, "POST", "/graphql", body=QUERY, **json) == (200, "webserver editor-ann None")
    assert ask(proxy, "POST", "/graphql", user="bob", body=QUERY, **json) == (200, "viewer bob None")
    assert ask(proxy, "GET", "/runs", user="bob") == (200, "viewer bob None")


@pytest.mark.parametrize(
    ("method", "path", "kind", "status"),
    [
        ("GET", "/graphql?query=mutation%20%7Bx%7D", "", 405),
        ("GET", "/graphql?query=mutation%20%7Bx%7D", "application/json", 405),
        ("POST", "/graphql", "application/x-www-form-urlencoded", 405),
        ("POST", "/graphql", "text/plain", 405),
        ("POST", "/graphql", "multipart/form-data; boundary=x", 405),
        ("POST", "/graphql", "application/json-patch+json", 405),
        ("POST", "/graphql", "application/json; charset=utf-8", 200),
        ("POST", "/report_asset_materialization/x", "application/json", 403),
        ("POST", "/report_asset_check/x", "application/json", 403),
        ("POST", "/anything", "application/json", 403),
        ("GET", "/assets", "", 200),
    ],
)
def test_only_a_post_of_json_carries_a_query(
    proxy: int, method: str, path: str, kind: str, status: int
) -> None:
    headers = {"Content_Type": kind} if kind else {}
    body = QUERY if method == "POST" else b""
    assert ask(proxy, method, path, body=body, **headers)[0] == status


@pytest.mark.parametrize(
    ("origin", "status"), [("http://127.0.0.1", 200), ("https://evil.example", 405), (None, 405)]
)
def test_a_websocket_is_opened_by_our_own_pages_alone(proxy: int, origin: str | None, status: int) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", **({"Origin": origin} if origin else {})}
    assert ask(proxy, "GET", "/graphql", **headers)[0] == status
