"""Streams through the API server: commands in containers, and tunnels to pods, over WebSocket.

Wire formats: "v5.channel.k8s.io" (one channel byte before each frame; 255 closes a channel) and the port-forward form
of "v4.channel.k8s.io" (channels 0 data and 1 error, each opened by the port's two bytes).

One thread per stream: an OpenSSL connection must not be read and written at once. So a peer that floods both ways
without reading could stall; at the deadline it is an error. Requests, dumps and restores do not.
"""

from __future__ import annotations

import json
import select
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
_STALL = 30  # seconds one frame may take
_LOOK_UP = 0.5  # seconds between looks at the deadline while nothing arrives


def run_in_pod(
    session: Session,
    path: str,
    argv: Sequence[str],
    container: str,
    stdin: bytes | Iterator[bytes],
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
        for channel, data in _frames(web, _stdin_frames(stdin), deadline, what):
            if channel == _STDOUT and data:
                yield data
            elif channel == _STDERR:
                tail = (tail + data)[-_TAIL:]
            elif channel == _ERROR:
                status += data
    finally:
        _close(web)
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


def _frames(web: Any, outgoing: Iterator[bytes], deadline: Deadline, what: str) -> Iterator[tuple[int, bytes]]:
    """Channel and payload of each frame until the server closes; meanwhile sends what is to be sent."""
    import websocket

    web.settimeout(_STALL)
    sending = next(outgoing, None)
    while True:
        deadline.check(what)
        try:
            if sending is not None and _ready(web, write=True):
                sending = next(outgoing, None) if _send(web, sending) else None
            if not _ready(web, wait=0 if sending is not None else _LOOK_UP):
                continue
            opcode, frame = web.recv_data()
        except websocket.WebSocketConnectionClosedException:
            return
        except (websocket.WebSocketException, OSError) as error:
            raise TemporaryError(f"{what}: the connection broke: {type(error).__name__}") from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return
        if frame:
            yield frame[0], frame[1:]


def _send(web: Any, frame: bytes) -> bool:
    """False when the command ended without reading all; what it said is still to be read."""
    try:
        web.send_binary(frame)
    except OSError:
        return False
    return True


def _stdin_frames(stdin: bytes | Iterator[bytes]) -> Iterator[bytes]:
    for piece in [stdin] if isinstance(stdin, bytes) else stdin:
        for start in range(0, len(piece), _PIECE):
            yield bytes([_STDIN]) + piece[start : start + _PIECE]
    if stdin:
        yield bytes([_CLOSE, _STDIN])


def _ready(web: Any, *, wait: float = 0, write: bool = False) -> bool:
    """Whether a frame can be read (bytes that OpenSSL already holds count), or one be sent, without waiting long."""
    pending = getattr(web.sock, "pending", None)
    if not write and pending is not None and pending():
        return True
    readers, writers = ([], [web.sock]) if write else ([web.sock], [])
    return any(select.select(readers, writers, [], wait))


def _close(web: Any) -> None:
    """Say goodbye, then let go of the socket whatever the peer makes of it."""
    web.close(timeout=1)
    web.shutdown()


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
    with client:
        try:
            web = _connect(session, url, "v4.channel.k8s.io", what)
        except RunbookError:
            return  # the client sees its connection closed, as it would from a dead server
        web.settimeout(_STALL)
        opened: set[int] = set()
        try:
            while not stop.is_set():
                from_pod = _ready(web)
                if not from_pod:
                    readable, _, _ = select.select([client, web.sock], [], [], 0.2)
                    from_pod = web.sock in readable
                    if client in readable and not _up(client, web):
                        break
                if from_pod and not _down(client, web, opened):
                    break
        finally:
            _end(client)
            _close(web)


def _up(client: socket.socket, web: Any) -> bool:
    """Client to pod; False when either is gone."""
    import websocket

    try:
        data = client.recv(_PIECE)
        if data:
            web.send_binary(bytes([_STDIN]) + data)
    except (websocket.WebSocketException, OSError):
        return False
    return bool(data)


def _down(client: socket.socket, web: Any, opened: set[int]) -> bool:
    """Pod to client; False when either is gone, or the pod refuses."""
    import websocket

    try:
        opcode, frame = web.recv_data()
    except (websocket.WebSocketException, OSError):
        return False
    if opcode == websocket.ABNF.OPCODE_CLOSE:
        return False
    if not frame:
        return True
    channel, data = frame[0], frame[1:]
    if channel not in opened:
        opened.add(channel)
        data = data[2:]  # the port's number
    if channel == 1 and data:
        return False
    return not data or _sent(client, data)


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
