"""A Kubernetes API server as one identity (port Cluster): looks, server-side apply, logs, streams, compare-and-swap."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.adapters.kubernetes_errors import GoneError, MovedError, NamespaceMissingError, NotServedError
from engine.adapters.kubernetes_session import Resource, Session
from engine.adapters.kubernetes_streams import forward, run_in_pod
from engine.core.action import Deadline
from engine.core.look import is_secret, masked
from engine.core.ports import Look, Manifest, Reference
from engine.core.redaction import Redactor, Secret
from engine.errors import NotYetError, PermanentError, TemporaryError

_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_MERGE = "application/merge-patch+json"
_SERVED_WITHIN = 8.0  # seconds a kind may take to be served after its CustomResourceDefinition
_POLL = 0.2
_TOKEN_LIFE = 600  # seconds; the shortest that TokenRequest allows


class KubernetesCluster:
    """Port Cluster. Nothing is imported or connected before the first call; safe to use from several threads.

    `hmac_key` gives the key that Secrets are masked with; asked only when there is a Secret to mask.
    """

    def __init__(
        self, kubeconfig: Path, context: str, redactor: Redactor, hmac_key: Callable[[], bytes], connections: int = 4
    ) -> None:
        self._session = Session(kubeconfig, context, redactor, connections)
        self._redactor = redactor
        self._hmac_key = hmac_key

    def uid(self) -> str:
        found = self.get(Reference("v1", "Namespace", "kube-system"))
        if found is None:
            raise NotYetError("no cluster yet: it has no namespace kube-system")
        return str(found["metadata"]["uid"])

    def version(self) -> str:
        return str(self._session.json("GET", "/version")["gitVersion"])

    def api_versions(self) -> Sequence[str]:
        kinds = self._session.discover()
        return sorted({gv for gv, _ in kinds} | {f"{gv}/{kind}" for gv, kind in kinds if kind})

    def namespaced(self, api_version: str, kind: str) -> bool | None:
        try:
            return self._session.resource(api_version, kind).namespaced
        except NotServedError:
            return None

    def masked(self, manifest: Manifest) -> Manifest:
        return masked(manifest, self._hmac_key)

    # --- Looking ------------------------------------------------------------------------------------------------

    def look(self, objects: Sequence[Manifest], *, manager: str, dry_run: bool = True) -> Sequence[Look]:
        missing: set[str] = set()  # the server takes 50 ms to say that a namespace is missing; ask once for each

        def one(manifest: Manifest) -> Look:
            return self._look(manifest, manager, missing, dry_run=dry_run)

        if len(objects) < 2:
            return [one(o) for o in objects]
        with ThreadPoolExecutor(min(len(objects), self._session.connections), thread_name_prefix="look") as pool:
            return list(pool.map(one, objects))

    def _look(self, manifest: Manifest, manager: str, missing: set[str], *, dry_run: bool) -> Look:
        reference = Reference.of(manifest)
        if reference.namespace in missing:
            return Look(reference, None, None, f"namespace {reference.namespace} does not exist")
        try:
            live = self.get(reference)
            dry = self._apply(manifest, manager, dry_run=True) if dry_run else None
        except (NotServedError, NamespaceMissingError) as error:
            if isinstance(error, NamespaceMissingError):
                missing.add(reference.namespace)
            return Look(reference, None, None, str(error))
        return Look(reference, self.masked(live) if live else None, self.masked(dry) if dry else None)

    def get(self, reference: Reference) -> Manifest | None:
        try:
            resource = self._resource(reference)
            answer: Manifest = self._session.json(
                "GET",
                resource.path(reference.namespace, reference.name),
                what=str(reference),
                secret=_secret(reference),
            )
        except (GoneError, NotServedError, NamespaceMissingError):
            return None
        return answer

    def list(self, api_version: str, kind: str, namespace: str = "", selector: str = "") -> Sequence[Manifest]:
        try:
            resource = self._session.resource(api_version, kind)
        except NotServedError:
            return []
        query = {"labelSelector": selector} if selector else None
        where = f" in {namespace}" if namespace else ""
        answer = self._session.json("GET", resource.path(namespace), query=query, what=f"list {resource.plural}{where}")
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer.get("items") or []]

    # --- Changing -----------------------------------------------------------------------------------------------

    def apply(self, manifest: Manifest, *, manager: str) -> Manifest:
        end = time.monotonic() + _SERVED_WITHIN
        while True:
            try:
                return self._apply(manifest, manager, dry_run=False)
            except NotServedError as error:
                if time.monotonic() > end:
                    raise PermanentError(f"{Reference.of(manifest)}: {error}") from error
            time.sleep(_POLL)

    def _apply(self, manifest: Manifest, manager: str, *, dry_run: bool) -> Manifest:
        """Server-side apply. `fieldValidation=Strict` makes a typo an error instead of a field that is dropped."""
        reference = Reference.of(manifest)
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = self._resource(reference).path(reference.namespace, reference.name)
        try:
            answer: Manifest = self._session.json(
                "PATCH",
                path,
                query=query,
                body=manifest,
                content=_APPLY,
                what=str(reference),
                secret=_secret(reference),
            )
        except GoneError as error:  # discovery names the kind, its storage is not up yet
            raise NotServedError(f"kind {reference.kind} ({reference.api_version}) is not served") from error
        return answer

    def patch(self, reference: Reference, body: Mapping[str, Any], *, manager: str) -> None:
        self._session.request(
            "PATCH",
            self._resource(reference).path(reference.namespace, reference.name),
            query={"fieldManager": manager},
            body=body,
            content=_MERGE,
            what=str(reference),
            secret=_secret(reference),
        )

    def delete(self, reference: Reference, deadline: Deadline, *, wait: bool = True, grace: int | None = None) -> None:
        try:
            path = self._resource(reference).path(reference.namespace, reference.name)
            body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
            if grace is not None:
                body["gracePeriodSeconds"] = grace
            self._session.request("DELETE", path, body=body, what=f"delete {reference}", secret=_secret(reference))
        except (GoneError, NotServedError, NamespaceMissingError):
            return
        found = self.get(reference) if wait else None
        uid = found["metadata"]["uid"] if found else ""
        while found is not None and found["metadata"]["uid"] == uid:
            deadline.check(f"waiting until {reference} is gone")
            deadline.wait(_POLL)
            found = self.get(reference)

    def swap(self, manifest: Manifest, resource_version: str) -> Manifest | None:
        reference = Reference.of(manifest)
        resource = self._resource(reference)
        try:
            if not resource_version:
                answer: Manifest = self._session.json(
                    "POST", resource.path(reference.namespace), body=manifest, what=str(reference)
                )
            else:
                versioned = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": resource_version}}
                path = resource.path(reference.namespace, reference.name)
                answer = self._session.json("PUT", path, body=versioned, what=str(reference))
        except (MovedError, GoneError):
            return None
        return answer

    # --- Pods ---------------------------------------------------------------------------------------------------

    def logs(self, namespace: str, pod: str, container: str, *, lines: int = 20) -> str:
        path = self._session.resource("v1", "Pod").path(namespace, pod, "log")
        query = {"container": container, "tailLines": lines}
        text = self._session.request("GET", path, query=query, accept="*/*", what=f"logs of {namespace}/{pod}")
        return self._redactor.text(text.decode(errors="replace"))

    def exec(
        self,
        namespace: str,
        pod: str,
        argv: Sequence[str],
        *,
        container: str = "",
        stdin: bytes | Iterator[bytes] = b"",
        deadline: Deadline,
    ) -> Iterator[bytes]:
        path = self._session.resource("v1", "Pod").path(namespace, pod, "exec")
        return run_in_pod(self._session, path, argv, container, stdin, deadline, self._redactor)

    @contextmanager
    def tunnel(self, service: str) -> Iterator[tuple[str, int]]:
        """See Cluster. NotYetError when there is no such service, TemporaryError when no pod behind it is ready."""
        where, _, port = service.rpartition(":")
        namespace, _, name = where.partition("/")
        pod, target = self._ready_pod(namespace, name, port)
        path = self._session.resource("v1", "Pod").path(namespace, pod, "portforward")
        with forward(self._session, path, target, f"tunnel to {service}") as address:
            yield address

    def _ready_pod(self, namespace: str, name: str, port: str) -> tuple[str, int]:
        found = self.get(Reference("v1", "Service", name, namespace))
        if found is None:
            raise NotYetError(f"service {namespace}/{name} does not exist yet")
        ports = [p for p in found["spec"].get("ports") or [] if port in (str(p["port"]), p.get("name"))]
        if not ports:
            raise PermanentError(f"service {namespace}/{name} has no port {port}")
        selector = f"kubernetes.io/service-name={name}"
        for part in self.list("discovery.k8s.io/v1", "EndpointSlice", namespace, selector):
            target = next(
                (p["port"] for p in part.get("ports") or [] if p.get("name", "") == ports[0].get("name", "")), 0
            )
            for endpoint in part.get("endpoints") or []:
                pod = endpoint.get("targetRef") or {}
                if target and pod.get("kind") == "Pod" and (endpoint.get("conditions") or {}).get("ready"):
                    return str(pod["name"]), int(target)
        raise TemporaryError(f"no ready pod behind service {namespace}/{name}")

    def service_account_token(self, namespace: str, name: str) -> Secret:
        path = self._session.resource("v1", "ServiceAccount").path(namespace, name, "token")
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _TOKEN_LIFE},
        }
        answer = self._session.json("POST", path, body=body, what=f"token of {namespace}/{name}", secret=True)
        return self._redactor.register(answer["status"]["token"])

    def _resource(self, reference: Reference) -> Resource:
        resource = self._session.resource(reference.api_version, reference.kind)
        if resource.namespaced and not reference.namespace:
            raise PermanentError(f"{reference}: names no namespace")
        return resource


def _secret(reference: Reference) -> bool:
    return is_secret({"apiVersion": reference.api_version, "kind": reference.kind})
