"""The example under docs/examples/embedding moves the application's pages to another model, and back."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase

from mydocs.migrations import check, migrate, rollback
from mydocs.search_aliases import SearchAliases

ROOT = Path(__file__).parents[2]
NEW = "emb_content_markdown_voyage_3_large"
OLD = "emb_content_markdown_text_embedding_3_large"

pytestmark = [pytest.mark.anyio, pytest.mark.seconds(180)]


class Model(BaseHTTPRequestHandler):
    """The model's API, busy at its first call."""

    calls: list[list[str]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.calls.append(asked["input"])
        vector = [1.0] + [0.0] * (asked["output_dimension"] - 1)
        body = json.dumps({"data": [{"embedding": vector} for _ in asked["input"]]}).encode()
        self.send_response(503 if len(self.calls) == 1 else 200)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Model]]:
    handler = type("Counted", (Model,), {"calls": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setenv("VOYAGE_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("VOYAGE_API_KEY", "key")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


@pytest.mark.limits(alias_grace=0.0)
async def test_the_example_moves_the_pages_to_another_model_and_back(
    local_db: AsyncIOMotorDatabase[dict[str, Any]], tmp_path: Path, model: type[Model]
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", folder)
    shutil.copytree(ROOT / "docs" / "examples" / "embedding", folder, dirs_exist_ok=True)
    old = [1.0] + [0.0] * 3071
    pages = [{"_id": at, "document_id": 1, "content_markdown": f"# {at}", OLD: old} for at in range(5)]
    await local_db["pages"].insert_many(pages)
    await migrate(local_db, directory=folder, wait=True)
    assert await SearchAliases(local_db).index("vec_pages") == "vec_pages_voyage_dot"
    assert [len(texts) for texts in model.calls] == [5, 5]
    await check(local_db, directory=folder, vectors=True)
    await rollback(local_db, directory=folder)
    assert await SearchAliases(local_db).index("vec_pages") == "vec_pages_large_dot"
    assert await local_db["pages"].find_one({"_id": 3}) == pages[3]
    await migrate(local_db, directory=folder, wait=True)
    (folder / "later_voyage_embeddings.py").rename(folder / "006_voyage_contract.py")
    await migrate(local_db, directory=folder, wait=True)
    page = await local_db["pages"].find_one({"_id": 3})
    assert page is not None
    assert set(page) == {"_id", "document_id", "content_markdown", NEW, f"{NEW}_fingerprint"}
