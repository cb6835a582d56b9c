"""What the stand-ins Nawal and Kinich share: jobs that any pod takes, in Redis, and the HTTP around them.

POST /jobs (202 and {"id": ...}; with ?wait=SECONDS the finished job and 200), GET /jobs/ID, GET /health, GET /metrics,
GET / (what it is), and the GETs a service adds. Counters are in Redis too, so every pod tells the same.
Environment: REDIS (host:port; empty: this process's memory), REDIS_PASSWORD_FILE, WORKERS, MAX_JOBS, PORT (8080).
"""

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

KEPT = 3600  # seconds that a finished job is kept
LOST = 300  # seconds after which a job that did not finish no longer takes a place
LARGEST = 2**16  # bytes of a request
Job = dict


class RefusedError(ValueError):
    """A job that is not as it must be; the message says what it must be."""


class Redis:
    """As much of Redis's protocol (RESP 2) as is needed; one connection for each thread, made again when it breaks."""

    def __init__(self, address: str, password: Callable[[], str]) -> None:
        host, _, port = address.partition(":")
        self._address, self._password, self._mine = (host, int(port or 6379)), password, threading.local()

    def __call__(self, *words: object) -> object:
        """OSError when Redis does not answer, or refuses."""
        try:
            return self._ask(*words)
        except OSError:
            self._mine.file = None
        try:
            return self._ask(*words)
        except OSError:
            self._mine.file = None
            raise

    def _ask(self, *words: object) -> object:
        if getattr(self._mine, "file", None) is None:
            connection = socket.create_connection(self._address, timeout=5)
            self._mine.file = connection.makefile("rwb")
            connection.close()  # the file keeps it open
            if word := self._password():
                self._ask("AUTH", word)
        file, parts = self._mine.file, [str(w).encode() for w in words]
        file.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        file.flush()
        return self._answer(file)

    def _answer(self, file) -> object:
        line = file.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("Redis closed the connection")
        kind, text = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise OSError(f"Redis says {text}")
        if kind == b":":
            return int(text)
        if kind == b"$":
            return None if text == "-1" else file.read(int(text) + 2)[:-2].decode()
        if kind == b"*":
            return None if text == "-1" else [self._answer(file) for _ in range(int(text))]
        return text


class Shared:
    """Jobs in Redis: places, a queue, documents, counters."""

    def __init__(self, redis: Redis, service: str, limit: int) -> None:
        self._redis, self._key, self._limit = redis, service, limit

    def add(self, job: Job) -> bool:
        """False when every place is taken. Takes the place first and looks then: never one too many."""
        now = time.time()
        self._redis("ZREMRANGEBYSCORE", f"{self._key}:active", "-inf", now - LOST)
        self._redis("ZADD", f"{self._key}:active", now, job["id"])
        if int(self._redis("ZCARD", f"{self._key}:active")) > self._limit:
            self._redis("ZREM", f"{self._key}:active", job["id"])
            return False
        self.put(job)
        self._redis("RPUSH", f"{self._key}:queue", job["id"])
        return True

    def take(self) -> Job | None:
        found = self._redis("BLPOP", f"{self._key}:queue", 1)
        return self.get(found[1]) if found else None

    def put(self, job: Job) -> None:
        self._redis("SET", f"{self._key}:job:{job['id']}", json.dumps(job), "EX", KEPT)

    def get(self, name: str) -> Job | None:
        text = self._redis("GET", f"{self._key}:job:{name}")
        return json.loads(text) if text else None

    def finish(self, job: Job, counted: Mapping[str, int]) -> None:
        self.put(job)
        self._redis("ZREM", f"{self._key}:active", job["id"])
        for name, by in counted.items():
            self._redis("HINCRBY", f"{self._key}:counts", name, by)

    def counts(self) -> dict[str, int]:
        flat = self._redis("HGETALL", f"{self._key}:counts")
        return {name: int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}

    def active(self) -> int:
        return int(self._redis("ZCARD", f"{self._key}:active"))


class Alone:
    """The same in this process's memory."""

    def __init__(self, limit: int) -> None:
        self._limit, self._jobs, self._active, self._counts = limit, {}, set(), Counter()
        self._queue, self._lock = queue.Queue(), threading.Lock()

    def add(self, job: Job) -> bool:
        with self._lock:
            if len(self._active) >= self._limit:
                return False
            self._active.add(job["id"])
        self.put(job)
        self._queue.put(job["id"])
        return True

    def take(self) -> Job | None:
        try:
            return self.get(self._queue.get(timeout=1))
        except queue.Empty:
            return None

    def put(self, job: Job) -> None:
        self._jobs[job["id"]] = json.dumps(job)

    def get(self, name: str) -> Job | None:
        return json.loads(self._jobs[name]) if name in self._jobs else None

    def finish(self, job: Job, counted: Mapping[str, int]) -> None:
        self.put(job)
        with self._lock:
            self._active.discard(job["id"])
            self._counts.update(counted)

    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def active(self) -> int:
        return len(self._active)


class Service:
    """One service: what its jobs are, and what it says beside them.

    `check(input)` gives the job's input made whole, or raises RefusedError; `run(input)` its result and what to add
    to which counter; `counters` are told from the start, as 0; `pages` are further GETs.
    """

    def __init__(
        self,
        name: str,
        store: Shared | Alone,
        check: Callable[[dict], dict],
        run: Callable[[dict], tuple[dict, dict[str, int]]],
        counters: tuple[str, ...] = (),
        gauges: Mapping[str, float] | None = None,
        pages: Mapping[str, Callable[[], dict]] | None = None,
    ) -> None:
        self.name, self.store, self.check, self.run = name, store, check, run
        self.counters, self.gauges, self.pages = counters, dict(gauges or {}), dict(pages or {})
        self.stopping = threading.Event()

    def submit(self, given: object) -> Job | None:
        """The queued job; None when every place is taken. RefusedError."""
        if not isinstance(given, dict):
            raise RefusedError("a job is a JSON object")
        job = {"id": uuid.uuid4().hex, "state": "queued", "input": self.check(given)}
        return job if self.store.add(job) else None

    def work(self) -> None:
        """Take jobs and run them until the process is told to stop; what is running then is finished."""
        while not self.stopping.is_set():
            try:
                if job := self.store.take():
                    self._one(job)
            except OSError as error:
                print(f"{self.name}: {error}", flush=True)
                self.stopping.wait(1)

    def _one(self, job: Job) -> None:
        job |= {"state": "running", "pod": os.environ.get("POD", "")}
        self.store.put(job)
        began = time.monotonic()
        try:
            result, counted = self.run(job["input"])
            job |= {"state": "done", "result": result}
        except Exception as error:  # noqa: BLE001  # whatever a job dies of is its result
            job |= {"state": "failed", "error": str(error)}
            counted = {}
        took = int((time.monotonic() - began) * 1000)
        self.store.finish(job, {**counted, f"jobs_total/{job['state']}": 1, "job_milliseconds_total": took})

    def metrics(self) -> str:
        counts = dict.fromkeys(("jobs_total/done", "jobs_total/failed", "job_milliseconds_total", *self.counters), 0)
        lines = []
        for name, value in sorted({**counts, **self.store.counts()}.items()):
            metric, _, label = name.partition("/")
            labels = f'{{kind="{label}"}}' if label else ""
            if (head := f"# TYPE {self.name}_{metric} counter") not in lines:
                lines.append(head)
            lines.append(f"{self.name}_{metric}{labels} {value}")
        for name, value in {"jobs_active": self.store.active(), **self.gauges}.items():
            lines += [f"# TYPE {self.name}_{name} gauge", f"{self.name}_{name} {value}"]
        return "\n".join(lines) + "\n"

    def await_end(self, job: Job, seconds: float) -> Job:
        """The job as it is when it has ended, or when time is up."""
        end = time.monotonic() + min(seconds, 60)
        while job["state"] not in ("done", "failed") and time.monotonic() < end:
            time.sleep(0.05)
            job = self.store.get(job["id"]) or job
        return job


def handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/health":  # without Redis too: a restart of this pod would mend nothing
                self.reply(200, {"service": service.name, "ok": True})
            elif path == "/":
                self.reply(200, {"service": service.name, "standin": True})
            else:
                self.guarded(lambda: self.look(path))

        def look(self, path: str) -> None:
            if path == "/metrics":
                self.reply(200, service.metrics(), "text/plain; version=0.0.4")
            elif path in service.pages:
                self.reply(200, service.pages[path]())
            elif path.startswith("/jobs/") and (job := service.store.get(path.removeprefix("/jobs/"))):
                self.reply(200, job)
            else:
                self.reply(404, {"error": "not found"})

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > LARGEST:
                self.close_connection = True  # the body stays unread
                self.reply(413, {"error": f"at most {LARGEST} bytes"})
                return
            body = self.rfile.read(length)
            self.guarded(lambda: self.submit(body))

        def submit(self, body: bytes) -> None:
            parts = urlsplit(self.path)
            if parts.path != "/jobs":
                self.reply(404, {"error": "not found"})
                return
            job = service.submit(json.loads(body or b"{}"))
            if job is None:
                self.reply(429, {"error": "every place is taken: ask again later"})
                return
            job = service.await_end(job, float(parse_qs(parts.query).get("wait", ["0"])[0]))
            self.reply(200 if job["state"] in ("done", "failed") else 202, job)

        def guarded(self, answer: Callable[[], None]) -> None:
            try:
                answer()
            except ValueError as error:  # also what is no JSON
                self.reply(400, {"error": str(error)})
            except OSError as error:
                self.reply(503, {"error": f"no store: {error}"})

        def reply(self, status: int, content: dict | str, kind: str = "application/json") -> None:
            body = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet: probes ask several times a minute."""

    return Handler


def store_of(name: str) -> Shared | Alone:
    """As the environment says."""
    limit, address = int(os.environ.get("MAX_JOBS", "50")), os.environ.get("REDIS", "")
    file = os.environ.get("REDIS_PASSWORD_FILE", "")
    password = (lambda: Path(file).read_text().strip()) if file else (lambda: "")
    return Shared(Redis(address, password), name, limit) if address else Alone(limit)


def number(given: object, name: str, low: int, high: int) -> int:
    """RefusedError when it is no whole number from low to high."""
    if not isinstance(given, int) or isinstance(given, bool) or not low <= given <= high:
        raise RefusedError(f"{name} must be a whole number from {low} to {high}, not {given!r}")
    return given


def serve(service: Service) -> None:
    """Until SIGTERM: then no new job is taken, and those at work are finished."""
    workers = [threading.Thread(target=service.work) for _ in range(int(os.environ.get("WORKERS", "2")))]
    for worker in workers:
        worker.start()
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), handler(service))
    server.daemon_threads = True

    def stop(*_: object) -> None:
        service.stopping.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print(f"{service.name} stand-in: {len(workers)} workers", flush=True)
    server.serve_forever()
    sys.exit(0)
