"""PostgreSQL in a pod of the test's own namespace, with database `shop` and one row that nobody may see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.adapters.kubernetes import KubernetesCluster
from engine.core.action import Deadline
from engine.errors import RunbookError
from tests.contract.cluster import namespace
from tests.contract.services import wait_until

_START = """
set -eu
initdb -D /data/pg -U postgres --auth=trust >/dev/null
echo 'CREATE DATABASE shop' | postgres --single -D /data/pg postgres
echo "CREATE TABLE t AS SELECT 'canary-7f3a9c51d2'::text AS token" | postgres --single -D /data/pg shop
exec postgres -D /data/pg -F -c unix_socket_directories=/tmp
"""


@contextmanager
def running(cluster: KubernetesCluster) -> Iterator[str]:
    """Its namespace; the pod is `database`, the role `postgres`."""
    with namespace(cluster) as name:
        container = {
            "name": "main",
            "image": "docker.io/lab/postgres:15",
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", _START],
            "env": [{"name": "PGHOST", "value": "/tmp"}],
            "securityContext": {"runAsUser": 100, "runAsGroup": 102},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }
        spec = {
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }
        spec["securityContext"] = {"fsGroup": 102}
        meta = {"name": "database", "namespace": name}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, manager="test")

        def ready() -> bool:
            try:
                argv = ["psql", "-U", "postgres", "-d", "shop", "-Atc", "SELECT count(*) FROM t"]
                return b"".join(cluster.exec(name, "database", argv, deadline=Deadline(10))).strip() == b"1"
            except RunbookError:
                return False

        wait_until(ready, 90)
        yield name
