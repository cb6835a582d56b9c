#!/usr/bin/env python3
"""Verifies a cluster that was not built here; prints one line per context, or what is wrong, and exits 1 then.

verify_cluster.py KUBECONFIG AT_LEAST CONTEXT...
"""

import re
import sys

import urllib3
from kubernetes import client, config

DEFAULT = "storageclass.kubernetes.io/is-default-class"


def main() -> None:
    kubeconfig, at_least, *contexts = sys.argv[1:]
    problems = [
        f"context {c}: {problem}" for c in dict.fromkeys(contexts) for problem in verify(kubeconfig, c, at_least)
    ]
    if problems:
        print(f"The cluster of {kubeconfig} can not be used: {'; '.join(problems)}. Nothing was changed.")
        sys.exit(1)
    print(f"{', '.join(contexts)}: the cluster answers")


def verify(kubeconfig: str, context: str, at_least: str) -> list[str]:
    try:
        api = config.new_client_from_config(kubeconfig, context)
        api.configuration.retries = False
        return list(shortcomings(api, at_least))
    except config.ConfigException as error:
        return [str(error)]
    except client.ApiException as error:
        return [f"{error.status} {error.reason}"]
    except (urllib3.exceptions.HTTPError, OSError) as error:
        return [f"no answer: {error}"]


def shortcomings(api: client.ApiClient, at_least: str):
    version = client.VersionApi(api).get_code()
    if numbers(f"{version.major}.{version.minor}") < numbers(at_least):
        yield f"Kubernetes {version.git_version} is older than {at_least}"
    nodes = client.CoreV1Api(api).list_node(_request_timeout=10).items
    if not any(c.type == "Ready" and c.status == "True" for n in nodes for c in n.status.conditions or []):
        yield "no node is ready"
    classes = client.StorageV1Api(api).list_storage_class(_request_timeout=10).items
    if not any((c.metadata.annotations or {}).get(DEFAULT) == "true" for c in classes):
        yield "it has no default StorageClass, so no volume would bind"


def numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:2]]


if __name__ == "__main__":
    main()
