"""A real server on loopback that speaks as much of OpenAI's protocol as captioning needs, and misbehaves on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What is sent back."""

    body: Any = ""  # a text: the answer of the model; bytes: as they are; else JSON
    status: int = 200
    seconds: float = 0.0
    ended: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request as the server saw it."""

    path: str
    key: str
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        content = self.body["messages"][0]["content"]
        return content if isinstance(content, str) else content[0]["text"]

    @property
    def picture(self) -> str:
        content = self.body["messages"][0]["content"]
        return "" if isinstance(content, str) else content[1]["image_url"]["url"]


@dataclass
class ChatServer:
    """The server's address, what it was asked, and what it replies."""

    reply: Callable[[Asked], Reply]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def chat_server(reply: Callable[[Asked], Reply]) -> Iterator[ChatServer]:
    """Serve on a free port of this machine until the block ends."""
    state = ChatServer(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            asked = Asked(self.path, self.headers.get("Authorization", ""), json.loads(raw))
            state.asked.append(asked)
            sent = state.reply(asked)
            time.sleep(sent.seconds)
            body = sent.body if isinstance(sent.body, bytes) else json.dumps(_completion(sent)).encode()
            self.send_response(sent.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("retry-after-ms", "1")
            for name, value in sent.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has gone
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(sent: Reply) -> Any:
    if not isinstance(sent.body, str):
        return sent.body
    message = {"role": "assistant", "content": sent.body}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [{"index": 0, "message": message, "finish_reason": sent.ended}],
    }
