"""A download appears complete and checked, or not at all."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from export.errors import ExportError
from export.fastsam.download import NAMES, URL, download

CONTENT = b"weights" * 300_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves the weights, half of them, or an error."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/half" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def ignore(received: int, total: int) -> None:
    pass


def test_a_file_with_the_right_hash_arrives(server: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "checkpoints" / "FastSAM-s.pt"
    download(f"{server}/weights", SHA256.upper(), target, lambda *progress: seen.append(progress))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert len(seen) > 1
    assert list(target.parent.iterdir()) == [target]


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "FastSAM-s.pt").write_bytes(CONTENT)
    download("http://127.0.0.1:1/nobody", SHA256, tmp_path / "FastSAM-s.pt", ignore)


@pytest.mark.parametrize(
    ("path", "sha256", "said"),
    [
        ("/weights", "0" * 64, "has SHA-256"),
        ("/half", SHA256, "has SHA-256"),
        ("/missing", SHA256, "404"),
    ],
)
def test_anything_else_is_refused(
    server: str, tmp_path: Path, path: str, sha256: str, said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        download(server + path, sha256, tmp_path / "FastSAM-s.pt", ignore)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="refused"):
        download("http://127.0.0.1:1/nobody", SHA256, tmp_path / "FastSAM-s.pt", ignore)


def test_an_older_file_stays_until_the_new_one_is_checked(server: str, tmp_path: Path) -> None:
    target = tmp_path / "FastSAM-s.pt"
    target.write_bytes(b"older")
    with pytest.raises(ExportError):
        download(f"{server}/weights", "0" * 64, target, ignore)
    assert target.read_bytes() == b"older"
    download(f"{server}/weights", SHA256, target, ignore)
    assert target.read_bytes() == CONTENT


def test_both_published_checkpoints_have_an_address() -> None:
    assert {URL.format(name=name).rpartition("/")[2] for name in NAMES} == {
        "FastSAM-s.pt",
        "FastSAM-x.pt",
    }
