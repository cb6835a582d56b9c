"""One identity's way to a Kubernetes API server: kubeconfig, connection pool, requests, discovery of kinds.

The `kubernetes` package reads the kubeconfig (certificates, tokens, exec plugins); requests are plain JSON over its
pool's settings, because its models neither know custom resources nor keep what they do not know.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from engine.adapters.kubernetes_errors import NotServedError, status_error
from engine.core.redaction import Redactor
from engine.errors import NotYetError, PermanentError, RunbookError, TemporaryError

_CONNECT, _READ = 5, 30  # seconds
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind is served."""

    group_version: str
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        root = "/apis/" if "/" in self.group_version else "/api/"
        parts = [root + self.group_version]
        parts += [f"namespaces/{quote(namespace, safe=':')}"] if self.namespaced and namespace else []
        parts += [p for p in (self.plural, quote(name, safe=":"), subresource) if p]
        return "/".join(parts)


class Session:
    """Lazy: nothing is read or connected before the first request. Thread-safe."""

    def __init__(self, kubeconfig: Path, context: str, redactor: Redactor, connections: int) -> None:
        self.identity = context
        self.connections = connections
        self._kubeconfig = kubeconfig
        self._redactor = redactor
        self._lock = threading.Lock()
        self._configuration: Any = None
        self._pool: Any = None
        self._reached = False
        self._kinds: dict[tuple[str, str], Resource] = {}

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content: str = "application/json",
        accept: str = "application/json",
        what: str = "",
        secret: bool = False,
        read_timeout: float = _READ,
    ) -> bytes:
        """One request; its answer's body. Raises what `status_error` says, or that nothing answers."""
        import urllib3

        configuration = self.configuration()
        headers = {"Accept": accept, "User-Agent": "runbook", **self.authorization()}
        if body is not None:
            headers["Content-Type"] = content
        url = configuration.host + path + (f"?{urlencode(query)}" if query else "")
        what = what or f"{method} {path}"
        try:
            answer = self._pool.request(
                method,
                url,
                body=json.dumps(body).encode() if body is not None else None,
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT, read=read_timeout),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(error, what) from error
        self._reached = True
        if answer.status >= 400:
            said = status_error(answer.status, answer.data, what, self.identity, secret=secret)
            raise type(said)(self._redactor.text(str(said)))
        return bytes(answer.data)

    def json(self, method: str, path: str, **more: Any) -> Any:
        return json.loads(self.request(method, path, **more))

    def resource(self, api_version: str, kind: str) -> Resource:
        """Where a kind is served; NotServedError when it is not. Discovery is asked again for each unknown kind."""
        key = (api_version, kind)
        if key not in self._kinds:
            self.discover()
        if key not in self._kinds:
            raise NotServedError(f"kind {kind} ({api_version}) is not served")
        return self._kinds[key]

    def discover(self) -> Mapping[tuple[str, str], Resource]:
        """Every kind the server serves, in two requests ("Aggregated discovery", Kubernetes 1.30 and later)."""
        kinds: dict[tuple[str, str], Resource] = {}
        for root in ("/api", "/apis"):
            for group in self.json("GET", root, accept=_AGGREGATED).get("items") or []:
                name = group.get("metadata", {}).get("name", "")
                for version in group["versions"]:
                    group_version = f"{name}/{version['version']}" if name else version["version"]
                    for found in version.get("resources") or []:
                        kind = (found.get("responseKind") or {}).get("kind") or ""
                        resource = Resource(group_version, found["resource"], found["scope"] == "Namespaced")
                        kinds.setdefault((group_version, kind), resource)
        with self._lock:
            self._kinds = kinds
        return kinds

    def configuration(self) -> Any:
        """The kubeconfig's context as the `kubernetes` package reads it. NotYetError without a kubeconfig."""
        with self._lock:
            if self._configuration is None:
                self._configuration = self._load()
                self._pool = self._connect(self._configuration)
            return self._configuration

    def authorization(self) -> dict[str, str]:
        """The bearer token, when the context has one; refreshed by its plugin as needed."""
        token = self.configuration().get_api_key_with_prefix("authorization")
        if not token:
            return {}
        self._redactor.register(str(token).removeprefix("Bearer "))
        return {"Authorization": str(token)}

    def _load(self) -> Any:
        if not self._kubeconfig.is_file():
            raise NotYetError(f"no cluster yet: kubeconfig {self._kubeconfig} does not exist")
        import yaml
        from kubernetes import client, config

        configuration = client.Configuration()
        load: Any = config.load_kube_config  # the package has no types
        try:
            load(str(self._kubeconfig), self.identity or None, configuration, persist_config=False)
        except config.ConfigException as error:
            raise PermanentError(f"kubeconfig {self._kubeconfig}: {self._redactor.text(str(error))}") from error
        except OSError as error:
            raise PermanentError(f"kubeconfig {self._kubeconfig}: {error.strerror}") from error
        except (yaml.YAMLError, TypeError, AttributeError, KeyError, ValueError) as error:
            # The package looks at a file's content without asking what it is. Its words may quote a key: not shown.
            raise PermanentError(f"{self._kubeconfig} is no kubeconfig ({type(error).__name__})") from error
        return configuration

    def _connect(self, configuration: Any) -> Any:
        import urllib3

        options: dict[str, Any] = {"maxsize": self.connections, "block": True}
        options |= {"ca_certs": configuration.ssl_ca_cert, "cert_file": configuration.cert_file}
        options |= {"key_file": configuration.key_file, "cert_reqs": "CERT_REQUIRED"}
        if not configuration.verify_ssl:
            options["cert_reqs"] = "CERT_NONE"
        if configuration.tls_server_name:
            options["server_hostname"] = configuration.tls_server_name
        if configuration.proxy:
            return urllib3.ProxyManager(configuration.proxy, **options)
        return urllib3.PoolManager(**options)

    def _no_answer(self, error: Exception, what: str) -> RunbookError:
        """A server never reached may not have been built yet; one that was reached will be back."""
        from urllib3 import exceptions

        host = self._configuration.host
        if isinstance(error, exceptions.SSLError):
            return PermanentError(f"{what}: {host} is not the cluster this kubeconfig is for: {error}")
        if self._reached or isinstance(error, exceptions.ReadTimeoutError):
            return TemporaryError(f"{what}: {host} does not answer: {type(error).__name__}")
        return NotYetError(f"no cluster yet: {host} does not answer ({type(error).__name__})")
