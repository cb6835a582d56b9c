"""`python -m engine.scheduled`: one backup, taken and proved by a job in the cluster, as the `backup` action does it.

It reads a configuration, and credentials as files that are mounted; it has no right in the cluster and no journal. What
it leaves is in the bucket: the same three objects, under a key made of the job's name, so a pod that is started again
goes on with what the one before it left. It prints one JSON document, whose `taken` a monitor may read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.actions.backup import BackupAction, BackupParams, BackupPlace
from engine.actions.backup_store import BackupStore, Signing
from engine.actions.postgresql import DatabaseSource, PostgresSource
from engine.adapters.age import Age
from engine.adapters.azureblob import AzureBlob
from engine.adapters.container import Container, password_file
from engine.adapters.launcher import ProcessLauncher
from engine.adapters.s3 import S3
from engine.adapters.ssh_signature import SshSignatures
from engine.core.action import Context, Deadline
from engine.core.backup import How
from engine.core.model import StepId
from engine.core.ports import Cluster, ObjectStore
from engine.core.redaction import Redactor, Secret
from engine.errors import RunbookError, UsageError

STEP = StepId("scheduled/backup")
CONFIGURATION = "/etc/runbook/backup.json"


class RemoteSource(PostgresSource):
    """A database reached over TCP, by a role that need not own what it restores: a scratch database belongs to it."""

    def restore_argv(self) -> list[str]:
        program, *options = super().restore_argv()
        return [program, "--no-owner", "--no-privileges", *options]


class Configuration(BaseModel):
    """What the ConfigMap holds. Folders hold one file per value, as a mounted Secret does."""

    model_config = ConfigDict(extra="forbid")

    source: RemoteSource = Field(description="The database, named as the `backup` step names it.")
    host: str = Field(min_length=1, description="Where its server answers.")
    port: int = Field(5432, gt=0, lt=65536)
    bucket: str = Field(min_length=1)
    prefix: str = ""
    proof: How = How.RESTORE
    seconds: float = Field(1800, gt=0, description="How long all of it may take.")
    object_store: str = Field("s3", pattern="^(s3|azureblob)$")
    endpoint: str = ""
    region: str = "us-east-1"
    account: str = Field("", description="Of Azure Blob storage.")
    credentials: Path = Field(description="Folder with username and password of the database's role.")
    store_credentials: Path | None = Field(
        None, description="Folder with access_key and secret_key (Azure: secret_key). None: the provider's own chain."
    )
    keys: Path = Field(description="Folder with recipients, signing_key, allowed_signers; identity, to prove a backup.")
    memory: Path = Field(description="An empty folder in memory, for what must never be on a disk.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command (docs/commands.md). Errors are one line each, on standard error."""
    parser = argparse.ArgumentParser(prog="python -m engine.scheduled", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default=CONFIGURATION, type=Path, help=f"default: {CONFIGURATION}")
    given = parser.parse_args(arguments)
    redactor = Redactor()
    try:
        evidence = run(read_configuration(given.config), redactor, os.environ.get("JOB_NAME", ""))
    except RunbookError as error:
        print(redactor.text(str(error)), file=sys.stderr)
        return error.exit_code
    print(redactor.text(json.dumps(evidence, sort_keys=True)))
    return 0


def read_configuration(path: Path) -> Configuration:
    """UsageError names the file, and the field that is wrong."""
    try:
        return Configuration.model_validate_json(path.read_text())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{path}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from error


def run(config: Configuration, redactor: Redactor, job: str) -> dict[str, Any]:
    """Take and prove one; its evidence. With the name of a job that was at it before, go on with what that left."""
    now = datetime.now(UTC)
    params = BackupParams(
        of=DatabaseSource(postgresql=config.source),
        to=BackupPlace(bucket=config.bucket, prefix=config.prefix),
        proof=config.proof,
    )
    with tempfile.TemporaryDirectory(prefix="runbook-", dir=config.memory) as memory:
        action = BackupAction(
            cast(Cluster, _container(config, Path(memory), redactor)),  # the part of it that a backup uses
            BackupStore(
                _objects(config, redactor), _age(config.keys, redactor), _signing(config.keys, Path(memory), redactor)
            ),
        )
        ctx = Context(
            step=STEP,
            inputs=_NoInputs(),
            now=now,
            deadline=Deadline(config.seconds),
            key=f"{job or f'scheduled-{now:%Y%m%dT%H%M%SZ}'}/backup",
            progress=lambda line: print(redactor.text(line), file=sys.stderr),
        )
        change = action.plan(params, action.read(params, ctx), ctx)
        return dict(action.apply(params, change, ctx).evidence)


def _container(config: Configuration, memory: Path, redactor: Redactor) -> Container:
    user, password = (_value(config.credentials, name) for name in ("username", "password"))
    if user != config.source.user:
        raise UsageError(f"{config.credentials}/username is {user}, but the source's user is {config.source.user}")
    environment = {
        "PGHOST": config.host,
        "PGPORT": str(config.port),
        "PGPASSFILE": str(password_file(memory, user, redactor.register(password))),
        "PGCONNECT_TIMEOUT": "30",
    }
    return Container(environment, redactor)


def _objects(config: Configuration, redactor: Redactor) -> ObjectStore:
    folder = config.store_credentials
    secret = redactor.register(_value(folder, "secret_key")) if folder else Secret("")
    if config.object_store == "azureblob":
        return AzureBlob(config.endpoint, (config.account, secret) if folder else None, redactor)
    return S3(config.endpoint, config.region, (_value(folder, "access_key"), secret) if folder else None, redactor)


def _age(keys: Path, redactor: Redactor) -> Age:
    identity = keys / "identity"

    def identities() -> list[str]:
        return [redactor.register(identity.read_text()).reveal()] if identity.exists() else []

    return Age(_value(keys, "recipients").split(), identities)


def _signing(keys: Path, memory: Path, redactor: Redactor) -> Signing:
    """With a copy of the key that nobody else may read: a mounted Secret is open to its group."""
    text = redactor.register(_value(keys, "signing_key")).reveal()
    key = memory / "signing_key"
    key.touch(0o600)
    key.write_text(text.rstrip() + "\n")
    signatures = SshSignatures(ProcessLauncher(memory, redactor, "scheduled"))
    return Signing(signatures, key, keys / "allowed_signers")


def _value(folder: Path, name: str) -> str:
    """What one mounted file holds. UsageError when it is not there, or empty."""
    try:
        text = (folder / name).read_text().strip()
    except OSError as error:
        raise UsageError(f"{folder / name} cannot be read: {error.strerror}") from error
    if not text:
        raise UsageError(f"{folder / name} is empty")
    return text


class _NoInputs:
    """A backup reads no file of the runbook."""

    digest = ""

    def path(self, name: str) -> Path:
        raise UsageError(f"a scheduled backup has no file {name}")

    def digest_of(self, name: str) -> str:
        raise UsageError(f"a scheduled backup has no file {name}")


if __name__ == "__main__":
    sys.exit(main())
