"""Streams through the API server: commands in containers, and tunnels to pods, over WebSocket.

Wire formats: "v5.channel.k8s.io" (one channel byte before each frame; 255 closes a channel) and the port-forward form
of "v4.channel.k8s.io" (channels 0 data and 1 error, each opened by the port's two bytes).
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from engine.adapters.kubernetes_errors import status_error
from engine.adapters.kubernetes_session import Session
from engine.core.action import Deadline
from engine.core.redaction import Redactor
from engine.errors import PermanentError, RunbookError, TemporaryError

_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = 0, 1, 2, 3, 255
_PIECE = 64 * 1024
_TAIL = 2000  # bytes of standard error kept for a message
_LOOK_UP = 1.0  # seconds between looks at the deadline while nothing arrives


def run_in_pod(
    session: Session,
    path: str,
    argv: Sequence[str],
    container: str,
    stdin: bytes,
    deadline: Deadline,
    redactor: Redactor,
) -> Iterator[bytes]:
    """Standard output in pieces. PermanentError for a non-zero exit, TemporaryError for a lost connection."""
    query = [("command", a) for a in argv] + [("container", container)] * bool(container)
    query += [("stdin", "true")] * bool(stdin) + [("stdout", "true"), ("stderr", "true")]
    what = f"exec in {path.rpartition('/pods/')[2].removesuffix('/exec')}"
    web = _connect(session, f"{path}?{urlencode(query)}", "v5.channel.k8s.io", what)
    tail, status = b"", b""
    try:
        if stdin:
            threading.Thread(target=_feed, args=(web, stdin), name="exec-stdin", daemon=True).start()
        for channel, data in _frames(web, deadline, what):
            if channel == _STDOUT and data:
                yield data
            elif channel == _STDERR:
                tail = (tail + data)[-_TAIL:]
            elif channel == _ERROR:
                status += data
    finally:
        web.close(timeout=1)
    if problem := _exit(status, what):
        raise type(problem)(redactor.text(f"{problem}: {tail.decode(errors='replace').strip()}".rstrip(": ")))


@contextmanager
def forward(session: Session, path: str, port: int, what: str) -> Iterator[tuple[str, int]]:
    """A loopback address each of whose connections goes to one port of a pod."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    stop = threading.Event()
    url = f"{path}?{urlencode({'ports': port})}"

    def accept() -> None:
        while not stop.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            worker = threading.Thread(
                target=_carry, args=(session, url, what, client, stop), name="tunnel", daemon=True
            )
            workers.append(worker)
            worker.start()

    workers: list[threading.Thread] = []
    acceptor = threading.Thread(target=accept, name="tunnel-accept", daemon=True)
    acceptor.start()
    try:
        yield "127.0.0.1", listener.getsockname()[1]
    finally:
        stop.set()
        listener.close()
        acceptor.join(2)
        for worker in workers:
            worker.join(2)


def _connect(session: Session, path: str, protocol: str, what: str) -> Any:
    import websocket

    configuration = session.configuration()
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": configuration.ssl_ca_cert}
    if not configuration.verify_ssl:
        options = {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}
    options |= {"certfile": configuration.cert_file, "keyfile": configuration.key_file}
    if configuration.tls_server_name:
        options["server_hostname"] = configuration.tls_server_name
    url = configuration.host.replace("http", "ws", 1) + path
    headers = [f"{name}: {value}" for name, value in session.authorization().items()]
    try:
        return websocket.create_connection(
            url, timeout=10, sslopt=options, header=headers, subprotocols=[protocol], enable_multithread=True
        )
    except websocket.WebSocketBadStatusException as error:
        raise status_error(error.status_code, error.resp_body or b"", what, session.identity) from error
    except (websocket.WebSocketException, OSError) as error:
        raise TemporaryError(f"{what}: {configuration.host} does not answer: {type(error).__name__}") from error


def _frames(web: Any, deadline: Deadline, what: str) -> Iterator[tuple[int, bytes]]:
    """Channel and payload of each frame until the server closes."""
    import websocket

    web.settimeout(_LOOK_UP)
    while True:
        deadline.check(what)
        try:
            opcode, frame = web.recv_data()
        except websocket.WebSocketTimeoutException:
            continue
        except websocket.WebSocketConnectionClosedException:
            return
        except (websocket.WebSocketException, OSError) as error:
            raise TemporaryError(f"{what}: the connection broke: {type(error).__name__}") from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return
        if frame:
            yield frame[0], frame[1:]


def _feed(web: Any, stdin: bytes) -> None:
    import websocket

    try:
        for start in range(0, len(stdin), _PIECE):
            web.send_binary(bytes([_STDIN]) + stdin[start : start + _PIECE])
        web.send_binary(bytes([_CLOSE, _STDIN]))
    except (websocket.WebSocketException, OSError):
        return  # the command ended without reading all; its exit status tells


def _exit(status: bytes, what: str) -> RunbookError | None:
    """What the error channel says of the command's end."""
    if not status:
        return TemporaryError(f"{what}: the connection ended before the command did")
    answer = json.loads(status)
    if answer.get("status") == "Success":
        return None
    causes = (answer.get("details") or {}).get("causes") or []
    code = next((c.get("message") for c in causes if c.get("reason") == "ExitCode"), "")
    return PermanentError(f"{what}: exit {code}" if code else f"{what}: {answer.get('message', 'failed')}")


def _carry(session: Session, url: str, what: str, client: socket.socket, stop: threading.Event) -> None:
    """One connection of a tunnel, both ways, until either side ends."""
    import websocket

    with client:
        try:
            web = _connect(session, url, "v4.channel.k8s.io", what)
        except RunbookError:
            return  # the client sees its connection closed, as it would from a dead server
        upward = threading.Thread(target=_upward, args=(client, web), name="tunnel-up", daemon=True)
        upward.start()
        web.settimeout(0.5)
        opened: set[int] = set()
        while not stop.is_set():
            try:
                opcode, frame = web.recv_data()
            except websocket.WebSocketTimeoutException:
                continue
            except (websocket.WebSocketException, OSError):
                break
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                break
            if not frame:
                continue
            channel, data = frame[0], frame[1:]
            if channel not in opened:
                opened.add(channel)
                data = data[2:]  # the port's number
            if channel == 1 and data:
                break  # the pod refuses
            if channel == 0 and data and not _sent(client, data):
                break
        _end(client)
        web.close(timeout=1)
        upward.join(2)


def _upward(client: socket.socket, web: Any) -> None:
    import websocket

    try:
        while data := client.recv(_PIECE):
            web.send_binary(b"\0" + data)
    except (websocket.WebSocketException, OSError):
        return  # either side is gone; the other direction ends the tunnel


def _sent(client: socket.socket, data: bytes) -> bool:
    try:
        client.sendall(data)
    except OSError:
        return False
    return True


def _end(client: socket.socket) -> None:
    try:
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed by the client already
