"""When each source was last backed up and proved, read from the bucket itself: whoever made the backup, it counts.

A backup is NAME.dump.age, NAME.manifest.json and NAME.proof.json. Per folder the newest one that has all three is told,
with the `taken` and `source` of its manifest. Signatures are not looked at: `runbook verify` does that. Nothing but
Python's library. S3: ListObjectsV2 and GetObject, signed (AWS Signature Version 4) when /credentials/access_key and
secret_key are there. Azure, when /credentials/sas is there: List Blobs and Get Blob with that shared access signature.

GET /metrics asks the bucket at most once a minute. While it cannot be read, backup_bucket_up is 0 and no age is told,
so that an alert says so.
"""

import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import time
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

ENDINGS = (".dump.age", ".manifest.json", ".proof.json")
CREDENTIALS = Path(os.environ.get("CREDENTIALS", "/credentials"))
EVERY = float(os.environ.get("EVERY", "60"))
EMPTY = hashlib.sha256(b"").hexdigest()


class Bucket:
    """A bucket of S3, and in Azure a container."""

    def __init__(self, endpoint: str, region: str, name: str) -> None:
        self.url, self.region, self.name = urlsplit(endpoint), region, name

    def get(self, key: str = "", **query: str) -> bytes:
        """OSError when the store does not answer, or not with 200."""
        signature = read("sas")
        path = quote(f"{self.url.path.rstrip('/')}/{self.name}" + (f"/{key}" if key else ""))
        arguments = urlencode(sorted(query.items()), quote_via=quote, safe="")
        secure = self.url.scheme == "https"
        connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(
            self.url.netloc, timeout=10
        )
        try:
            if signature:
                connection.request("GET", f"{path}?{arguments}&{signature}", headers={"x-ms-version": "2021-08-06"})
            else:
                connection.request("GET", f"{path}?{arguments}", headers=self.signed(path, arguments))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"{path}: {answer.status} {body[:200].decode(errors='replace')}")
        return body

    def signed(self, path: str, arguments: str) -> dict[str, str]:
        access, secret = read("access_key"), read("secret_key")
        if not access:
            return {}
        now = dt.datetime.now(dt.UTC)
        day, stamp = f"{now:%Y%m%d}", f"{now:%Y%m%dT%H%M%SZ}"
        headers = {"host": self.url.netloc, "x-amz-content-sha256": EMPTY, "x-amz-date": stamp}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = "\n".join(["GET", path, arguments, lines, names, EMPTY])
        scope = f"{day}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{secret}".encode()
        for part in [*scope.split("/"), text]:
            key = hmac.new(key, part.encode(), "sha256").digest()
        said = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        return {**headers, "Authorization": said}

    def objects(self, prefix: str) -> dict[str, str]:
        """Key -> when it was written, in a form that sorts; of all pages."""
        return self.blobs(prefix) if read("sas") else self.keys(prefix)

    def blobs(self, prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        marker, first = "", True
        while marker or first:
            query = {"restype": "container", "comp": "list", "prefix": prefix} | ({"marker": marker} if marker else {})
            tree = parsed(self.get(**query))
            for blob in tree.iterfind("Blobs/Blob"):
                written = parsedate_to_datetime(blob.findtext("Properties/Last-Modified", ""))
                found[blob.findtext("Name", "")] = written.isoformat()
            marker, first = tree.findtext("NextMarker") or "", False
        return found

    def keys(self, prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        more = {"continuation-token": ""}
        while more:
            given = {k: v for k, v in more.items() if v}
            tree = parsed(self.get(**{"list-type": "2", "prefix": prefix, **given}))
            for item in tree.iterfind("{*}Contents"):
                found[item.findtext("{*}Key", "")] = item.findtext("{*}LastModified", "")
            token = tree.findtext("{*}NextContinuationToken")
            more = {"continuation-token": token} if token else {}
        return found


def parsed(answer: bytes) -> ElementTree.Element:
    """What our own store says, over TLS; Azure begins with a byte order mark."""
    return ElementTree.fromstring(answer.removeprefix(b"\xef\xbb\xbf"))  # noqa: S314


def read(name: str) -> str:
    """A credential; empty: there is none. Read each time: it may be rotated."""
    file = CREDENTIALS / name
    return file.read_text().strip().removeprefix("?") if file.exists() else ""


def newest(objects: dict[str, str]) -> list[str]:
    """Of each folder the name of the newest backup that is whole, by when its proof was written, then by name."""
    latest: dict[str, tuple[str, str]] = {}
    dump, manifest, proof = ENDINGS
    for key, written in objects.items():
        name = key.removesuffix(proof)
        if name == key or name + dump not in objects or name + manifest not in objects:
            continue
        folder = name.rpartition("/")[0]
        latest[folder] = max(latest.get(folder, ("", "")), (written, name))
    return sorted(name for _, name in latest.values())


def metrics(bucket: Bucket, prefix: str) -> str:
    lines = ["# TYPE backup_last_success_timestamp_seconds gauge", "# TYPE backup_last_size_bytes gauge"]
    try:
        for name in newest(bucket.objects(prefix)):
            manifest = json.loads(bucket.get(name + ENDINGS[1]))
            label = f"{{of={json.dumps(manifest['source'])}}}"
            taken = dt.datetime.fromisoformat(manifest["taken"]).timestamp()
            lines.append(f"backup_last_success_timestamp_seconds{label} {taken:.0f}")
            lines.append(f"backup_last_size_bytes{label} {int(manifest['bytes'])}")
    except (OSError, http.client.HTTPException, ElementTree.ParseError, ValueError, KeyError) as error:
        print(f"the bucket could not be read: {error!r}")
        return "# TYPE backup_bucket_up gauge\nbackup_bucket_up 0\n"
    return "\n".join([*lines, "# TYPE backup_bucket_up gauge", "backup_bucket_up 1", ""])


def handler(bucket: Bucket, prefix: str) -> type[BaseHTTPRequestHandler]:
    kept, lock = {"at": -EVERY, "text": ""}, Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                if time.monotonic() - kept["at"] >= EVERY:
                    kept.update(text=metrics(bucket, prefix), at=time.monotonic())
                body = kept["text"].encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Not one line for each scrape."""

    return Handler


if __name__ == "__main__":
    store = Bucket(os.environ["S3_ENDPOINT"], os.environ.get("S3_REGION", "us-east-1"), os.environ["BUCKET"])
    address = ("", int(os.environ.get("PORT", "9116")))
    ThreadingHTTPServer(address, handler(store, os.environ.get("PREFIX", ""))).serve_forever()
