"""As much of a W&B server as a run needs, on a port of this machine: it keeps what it is told."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OF_A_NEW_RUN = {
    "id": "b", "config": "{}", "wandbConfig": "{}", "summaryMetrics": "{}", "historyTail": "[]", "eventsTail": "[]",
    "historyLineCount": 0, "eventsLineCount": 0, "logLineCount": 0, "tags": [], "sweepName": None,
}  # fmt: skip
PROJECT = {"id": "p", "name": "loops", "entity": {"id": "e", "name": "me"}}


class Told:
    """What the server was told.

    Attributes:
        url: Address.
        runs: Variables of every upsert of each run, by id.
        streamed: Bodies that were streamed, by path.
        asked: Names of queries and paths, in their order.
    """

    def __init__(self, url: str) -> None:
        self.url, self.asked = url, list[str]()
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.streamed: dict[str, list[dict[str, Any]]] = {}

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if not path.endswith("/graphql"):
            self.asked.append("file_stream" if path.endswith("/file_stream") else path)
            self.streamed.setdefault(path, []).append(body)
            return {}
        name, variables = body["query"].split("(")[0].split()[-1], body.get("variables", {})
        self.asked.append(name)
        if name == "RunResumeStatus":
            known = self.runs.get(variables["name"])
            found = OF_A_NEW_RUN | {"name": variables["name"]} if known else None
            return {"data": {"model": PROJECT | {"bucket": found}}}
        if name == "UpsertBucket":
            new = variables["name"] not in self.runs
            self.runs.setdefault(variables["name"], []).append(variables)
            bucket = OF_A_NEW_RUN | {"name": variables["name"], "displayName": variables["displayName"]}
            return {"data": {"upsertBucket": {"bucket": bucket | {"project": PROJECT}, "inserted": new}}}
        if name == "CreateRunFiles":
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}}
        return {"data": {}}


@contextmanager
def wandb_server() -> Iterator[Told]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            payload = json.dumps(told.answer(self.path, json.loads(body))).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Told(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
