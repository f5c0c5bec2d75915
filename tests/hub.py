"""A stand-in for the hub of Hugging Face on this machine: one data set, served as the hub serves files."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(name: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub whose only data set is `name`, and the requests that it has had."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asking = self.rfile.read(length)
            self._answer(body=True, asking=asking)

        def _answer(self, body: bool, asking: bytes = b"") -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(f"{self.command} {path}")
            prefix, repo = f"/datasets/{name}/resolve/", f"/api/datasets/{name}"
            file = path.removeprefix(prefix).partition("/")[2] if path.startswith(prefix) else ""
            if file in files:
                self._send_file(files[file], body)
            elif path in (repo, f"{repo}/revision/main", f"{repo}/revision/{COMMIT}"):
                self._send_json({
                    "id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [],
                    "downloads": 0, "likes": 0, "siblings": [{"rfilename": each} for each in files],
                })  # fmt: skip
            elif path.startswith(f"{repo}/tree/"):
                below = path.removeprefix(f"{repo}/tree/").partition("/")[2]
                self._send_json([self._describe(each) for each in files if not below or each.startswith(f"{below}/")])
            elif path.startswith(f"{repo}/paths-info/"):
                wanted = json.loads(asking)["paths"] if asking.startswith(b"{") else []
                self._send_json([self._describe(each) for each in files if each in wanted])
            else:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})

        def _describe(self, file: str) -> dict[str, object]:
            return {"type": "file", "path": file, "size": len(files[file]), "oid": COMMIT}

        def _send_json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send_file(self, content: bytes, body: bool) -> None:
            about = {"ETag": f'"{COMMIT}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            span = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            if span[1]:
                first, last = int(span[0]), min(int(span[2] or len(content)), len(content) - 1)
                about["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                self._send(206, content[first : last + 1], about, body)
            else:
                self._send(200, content, about, body)

        def _send(self, status: int, content: bytes, headers: Mapping[str, str], body: bool = True) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body and self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
