"""Azure Key Vault over TLS, and the login endpoint of Microsoft Entra ID beside it: there is none to run locally.

Each behaviour names the page of Microsoft's reference it follows. "REST" is the Key Vault REST API reference,
Secrets, version 7.4; what is not named there is not here. The real clients (azure-keyvault-secrets, azure-identity)
are what speaks to it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import trustme
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

HOST, LOGIN, RESOURCE = "runbook-test.vault.test", "login.test", "https://vault.test"
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
_LARGEST = 25 * 1024  # About Azure Key Vault secrets: "a maximum size of 25k bytes each"
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")  # REST, Set Secret: "URI Parameters", secret-name, and its pattern
_PAGE = 25  # REST, Get Secrets and Get Secret Versions: maxresults, "up to 25 results"


class Refused(Exception):
    """An answer of 4xx. REST, "KeyVaultError": `error` with `code`, `message`, `innererror`."""

    def __init__(self, status: int, code: str, message: str, inner: str = "", **headers: str) -> None:
        super().__init__(message)
        inside = {"innererror": {"code": inner}} if inner else {}
        self.body = {"error": {"code": code, "message": message, **inside}}
        self.status, self.headers = status, headers


@dataclass
class Held:
    """A secret with its versions, oldest first."""

    versions: list[dict[str, Any]] = field(default_factory=list)
    hidden: int = 0
    """How often it is still not found after a recovery began."""


@dataclass
class KeyVaultFake:
    """The state of one vault. Tests arrange it and look at it here; the client only by HTTP."""

    ca: str
    """The file of the CA that signed its certificate."""
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    held: dict[str, Held] = field(default_factory=dict)
    deleted: dict[str, Held] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    token_seconds: int = 3599
    purge_protection: bool = False
    recovery_takes: int = 0
    """GETs that do not find a secret yet, after its recovery began."""
    throttled: list[str] = field(default_factory=list)
    """One Retry-After for each of the next requests; empty text: none is sent."""
    denied: set[str] = field(default_factory=set)
    """Permissions that the identity lacks: get, set, list, delete, recover, purge."""
    requests: list[str] = field(default_factory=list)
    before_write: Any = None
    """Called once in the next Set Secret, before it is carried out."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    url = f"https://{HOST}"
    authority = f"https://{LOGIN}"

    def put(self, name: str, value: str, **more: Any) -> dict[str, Any]:
        """A new version, as Set Secret makes it."""
        now = int(time.time())
        attributes = {"enabled": True, **more.pop("attributes", {}), "created": now, "updated": now}
        made = {"version": uuid.uuid4().hex, "value": value, "attributes": attributes, "tags": {}, **more}
        # About keys, secrets and certificates, "Object identifiers": names are case-insensitive.
        self.held.setdefault(name.lower(), Held()).versions.append(made)
        return made

    def app(self, environ: Any, start: Any) -> Any:
        request = Request(environ)
        try:
            with self.lock:
                answer = self._login(request) if request.host.startswith(LOGIN) else self._vault(request)
        except Refused as no:
            answer = _json(no.body, no.status)
            answer.headers.update({name.replace("_", "-"): value for name, value in no.headers.items()})
        return answer(environ, start)

    # --- Microsoft identity platform and the OAuth 2.0 client credentials flow --------------------------------------

    def _login(self, request: Request) -> Response:
        if request.path.endswith("/.well-known/openid-configuration"):
            base = f"{self.authority}/{TENANT}"
            return _json({
                "issuer": f"{base}/v2.0",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            })  # fmt: skip
        form = request.form
        proof = form.get("client_secret") or form.get("client_assertion")
        if (form.get("client_id"), proof) != (CLIENT, self.client_secret):
            return _json({"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret."}, 401)
        if form.get("scope") != f"{RESOURCE}/.default":
            return _json({"error": "invalid_scope", "error_description": "AADSTS70011"}, 400)
        token = secrets.token_urlsafe(32)
        self.tokens.add(token)
        return _json({"token_type": "Bearer", "expires_in": self.token_seconds, "access_token": token})

    # --- The vault --------------------------------------------------------------------------------------------------

    def _vault(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.path}")
        if self.throttled:
            # Azure Key Vault throttling guidance: 429 above the limits; Retry-After is honoured where it is sent.
            wait = self.throttled.pop(0)
            raise Refused(429, "Throttled", "Request was not processed.", **({"Retry_After": wait} if wait else {}))
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            # Authentication, requests and responses: 401 with WWW-Authenticate, of which authority and resource are
            # taken. The client finds both out by a first request without token and body.
            challenge = f'Bearer authorization="{self.authority}/{TENANT}", resource="{RESOURCE}"'
            raise Refused(
                401, "Unauthorized", "AKV10000: Request is missing a Bearer token.", WWW_Authenticate=challenge
            )
        if "api-version" not in request.args:
            raise Refused(400, "BadParameter", "api-version must be specified")
        collection, name, *rest = [*request.path.strip("/").split("/"), ""]
        rest = [part for part in rest if part]
        if name and not _NAME.fullmatch(name):
            raise Refused(400, "BadParameter", f"The request URI contains an invalid name: {name}")
        key = name.lower()
        method = request.method
        if collection == "secrets" and not name and method == "GET":
            return self._list(request, [self._item(n, h.versions[-1], False) for n, h in sorted(self.held.items())])
        if collection == "secrets" and method == "GET" and rest == ["versions"]:
            return self._list(request, [self._item(key, v, True) for v in self._found(key).versions[::-1]])
        if collection == "secrets" and method == "GET":
            return self._get(key, rest[0] if rest else "")
        if collection == "secrets" and method == "PUT" and not rest:
            return self._set(key, request.get_json())
        if collection == "secrets" and method == "PATCH":
            return self._update(key, rest[0] if rest else "", request.get_json())
        if collection == "secrets" and method == "DELETE" and not rest:
            return self._delete(key)
        if collection == "deletedsecrets" and method == "GET" and name:
            return self._get_deleted(key)
        if collection == "deletedsecrets" and method == "GET":
            items = [self._item(n, h.versions[-1], False) | _gone(n) for n, h in sorted(self.deleted.items())]
            return self._list(request, items)
        if collection == "deletedsecrets" and method == "DELETE":
            return self._purge(key)
        if collection == "deletedsecrets" and method == "POST" and rest == ["recover"]:
            return self._recover(key)
        raise Refused(404, "NotFound", f"no such operation: {method} {request.path}")

    def _get(self, name: str, version: str) -> Response:
        # REST, Get Secret: secrets/get; without a version the latest.
        self._allow("get")
        versions = self._found(name).versions
        found = next((v for v in reversed(versions) if version in ("", v["version"])), None)
        if found is None:
            raise Refused(
                404, "SecretNotFound", f"A secret with (name/id) {name}/{version} was not found in this vault."
            )
        if not found["attributes"]["enabled"]:
            # About Azure Key Vault secrets, "Secret attributes": a disabled one cannot be read.
            raise Refused(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")
        return _json(self._bundle(name, found))

    def _set(self, name: str, body: dict[str, Any]) -> Response:
        # REST, Set Secret: "If the named secret already exists, Azure Key Vault creates a new version".
        self._allow("set")
        if name in self.deleted:
            # Azure Key Vault soft-delete overview: a deleted name cannot be used again until recovered or purged: 409.
            raise Refused(
                409,
                "Conflict",
                f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in "
                "this state, the secret can only be recovered or purged.",
                "ObjectIsDeletedButRecoverable",
            )
        self._fits(body)
        if self.before_write:
            meanwhile, self.before_write = self.before_write, None
            meanwhile()
        known = {key: body[key] for key in ("contentType", "tags", "attributes") if body.get(key)}
        return _json(self._bundle(name, self.put(name, body["value"], **known)))

    def _update(self, name: str, version: str, body: dict[str, Any]) -> Response:
        # REST, Update Secret: what is given replaces, the value stays; "secrets/set" permission.
        self._allow("set")
        versions = self._found(name).versions
        found = next(v for v in reversed(versions) if version in ("", v["version"]))
        self._fits({"value": "", **body})
        found["attributes"] |= body.get("attributes") or {}
        if body.get("tags") is not None:
            found["tags"] = body["tags"]
        return _json({k: v for k, v in self._bundle(name, found).items() if k != "value"})

    def _delete(self, name: str) -> Response:
        # REST, Delete Secret: "applies to any secret", all versions of it; it is then among the deleted ones.
        self._allow("delete")
        self.deleted[name] = self._found(name)
        del self.held[name]
        return _json(self._bundle(name, self.deleted[name].versions[-1], value=False) | _gone(name))

    def _get_deleted(self, name: str) -> Response:
        # REST, Get Deleted Secret: "the specified deleted secret along with its attributes", without the value.
        self._allow("get")
        if name not in self.deleted:
            raise Refused(404, "SecretNotFound", f"Deleted Secret not found: {name}")
        return _json(self._bundle(name, self.deleted[name].versions[-1], value=False) | _gone(name))

    def _recover(self, name: str) -> Response:
        # REST, Recover Deleted Secret: to its latest version; not found until that is done.
        self._allow("recover")
        if name not in self.deleted:
            raise Refused(404, "SecretNotFound", f"Deleted Secret not found: {name}")
        self.held[name] = self.deleted.pop(name)
        self.held[name].hidden = self.recovery_takes
        return _json(self._bundle(name, self.held[name].versions[-1], value=False))

    def _purge(self, name: str) -> Response:
        # REST, Purge Deleted Secret: 204; "can only be enabled on a soft-delete enabled vault" and not where the
        # recovery level lacks Purgeable (Azure Key Vault recovery management with soft delete and purge protection).
        self._allow("purge")
        if self.purge_protection:
            raise Refused(403, "Forbidden", "Operation is not allowed.", "PurgeProtectionEnabled")
        if self.deleted.pop(name, None) is None:
            raise Refused(404, "SecretNotFound", f"Deleted Secret not found: {name}")
        return Response(status=204)

    def _list(self, request: Request, items: list[dict[str, Any]]) -> Response:
        # REST, Get Secrets, Get Secret Versions, Get Deleted Secrets: no values; `nextLink` leads to the next page.
        self._allow("list")
        size, start = int(request.args.get("maxresults", _PAGE)), int(request.args.get("$skiptoken", 0))
        more = f"{self.url}{request.path}?api-version=7.4&$skiptoken={start + size}&maxresults={size}"
        return _json({"value": items[start : start + size], "nextLink": more if start + size < len(items) else None})

    def _found(self, name: str) -> Held:
        held = self.held.get(name)
        if held and held.hidden:
            held.hidden -= 1
            held = None
        if held is None:
            raise Refused(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")
        return held

    def _allow(self, permission: str) -> None:
        # Azure Key Vault REST API error codes, "HTTP 403": the token is good and the policy does not allow it.
        if permission in self.denied:
            raise Refused(403, "Forbidden", f"The user does not have secrets {permission} permission.", "AccessDenied")

    @staticmethod
    def _fits(body: dict[str, Any]) -> None:
        # About Azure Key Vault secrets: at most 25k bytes, and 15 tags of 256 characters each ("Secret tags").
        if len(body["value"].encode()) > _LARGEST:
            raise Refused(400, "BadParameter", "Property value has an invalid length: the secret is too long.")
        tags = body.get("tags") or {}
        if len(tags) > 15 or any(len(k) > 256 or len(v) > 256 for k, v in tags.items()):
            raise Refused(400, "BadParameter", "Too many tags, or one that is too long.")

    def _bundle(self, name: str, version: dict[str, Any], *, value: bool = True) -> dict[str, Any]:
        # REST, SecretBundle; DeletionRecoveryLevel.
        level = {"recoveryLevel": "Recoverable" if self.purge_protection else "Recoverable+Purgeable"}
        shown = {k: v for k, v in version.items() if k != "version" and (value or k != "value")}
        attributes = {**version["attributes"], **level, "recoverableDays": 90}
        return {**shown, "id": f"{self.url}/secrets/{name}/{version['version']}", "attributes": attributes}

    def _item(self, name: str, version: dict[str, Any], with_version: bool) -> dict[str, Any]:
        bundle = self._bundle(name, version, value=False)
        return bundle if with_version else {**bundle, "id": f"{self.url}/secrets/{name}"}


@contextlib.contextmanager
def running(folder: Any) -> Iterator[KeyVaultFake]:
    """The fake on a loopback port; within, its two names lead there, with port 443."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "keyvault-ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST, LOGIN).configure_cert(context)
    fake = KeyVaultFake(str(folder / "keyvault-ca.pem"))
    server = make_server("127.0.0.1", 0, fake.app, threaded=True, ssl_context=context, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with _names(server.server_port):
            yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _names(port: int) -> Iterator[None]:
    real = socket.getaddrinfo

    def lookup(host: Any, service: Any, *args: Any, **more: Any) -> Any:
        return real("127.0.0.1", port, *args, **more) if host in (HOST, LOGIN) else real(host, service, *args, **more)

    socket.getaddrinfo = lookup  # type: ignore[assignment]
    try:
        yield
    finally:
        socket.getaddrinfo = real


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def _json(body: Any, status: int = 200) -> Response:
    import json

    return Response(json.dumps(body), status, content_type="application/json; charset=utf-8")


def _gone(name: str) -> dict[str, Any]:
    # REST, DeletedSecretBundle.
    now = int(time.time())
    return {
        "recoveryId": f"https://{HOST}/deletedsecrets/{name}",
        "deletedDate": now,
        "scheduledPurgeDate": now + 90 * 86400,
    }
