"""Small servers for the protocols that checks speak: HTTP(S) with answers by path, DNS over UDP, a port that resets."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dns.message
import dns.rcode
import dns.rrset


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str


@dataclass
class WebServer:
    """`answers` maps a path to (status, body, *headers), or to a function of the request that gives them."""

    port: int
    answers: dict[str, Any] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """SNI of each TLS connection."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def web(tls: Any = None) -> Iterator[WebServer]:
    """`tls`: a certificate of trustme."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            request = Seen(self.command, self.path, dict(self.headers), body)
            state.seen.append(request)
            answer = state.answers.get(self.path.partition("?")[0], (404, "nothing here"))
            status, text, *headers = answer(request) if callable(answer) else answer
            data = (text if isinstance(text, str) else json.dumps(text)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_any

        def log_message(self, *_args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_args: object) -> None:
            """A client that hangs up in the handshake is what some tests want."""

    server = Quiet(("127.0.0.1", 0), Handler)
    state = WebServer(server.server_address[1])
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.configure_cert(context)
        context.sni_callback = lambda _socket, name, _context: state.names.append(name)
        # The handshake belongs to the request's own thread, not to accept().
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with _serving(server):
        yield state


@contextlib.contextmanager
def name_server(records: Mapping[tuple[str, str], list[str]]) -> Iterator[str]:
    """Answers from `records`, (name, type) -> data; a name that is in none does not exist."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            query = dns.message.from_wire(data)
            question = query.question[0]
            name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
            reply = dns.message.make_response(query)
            if (name, kind) in records:
                reply.answer.append(dns.rrset.from_text(question.name, 30, "IN", kind, *records[name, kind]))
            elif name not in {known for known, _ in records}:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            sock.sendto(reply.to_wire(), self.client_address)

    server = socketserver.UDPServer(("127.0.0.1", 0), Handler)
    with _serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def resetting() -> Iterator[str]:
    """A port that accepts and then resets, as a mesh proxy does with plain text."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    class Server(socketserver.ThreadingTCPServer):
        def shutdown_request(self, request: Any) -> None:
            request.close()  # without the orderly shutdown the base class sends first

    server = Server(("127.0.0.1", 0), Handler)
    with _serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A port that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def _serving(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
