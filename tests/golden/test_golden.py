"""Golden cases: a folder with input files and `expected.txt`, one folder of cases per kind.

A new case is a copied folder; a new kind is a function in KINDS that turns a case's folder into text. To accept what
the code says now: `UPDATE_GOLDEN=1 pytest tests/golden`, then read the difference.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel

from engine.core.names import service
from engine.errors import RunbookError
from engine.load import yaml
from engine.load.lint import Registry, check

HERE = Path(__file__).parent


class Generate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    length: int = Field(40, ge=16)


class SecretKey(BaseModel):
    model_config = ConfigDict(extra="forbid")
    generate: Generate | None = None
    value: str | None = None


class SecretParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: str = Field(json_schema_extra={"runbook-makes": "secret"})
    keys: dict[str, SecretKey]


class ReleaseParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    chart: str = Field(json_schema_extra={"runbook-file": True})
    namespace: str
    replicas: int = 1
    values: list[str] = Field(default_factory=list, json_schema_extra={"runbook-file": True})


class CommandParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    argv: list[str]


class Target(BaseModel):
    model_config = ConfigDict(extra="forbid")
    bucket: str = Field(json_schema_extra={"runbook-names": "bucket"})


class BucketParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(json_schema_extra={"runbook-makes": "bucket"})


class BackupParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    of: str
    to: Target | None = None


class HttpParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: str = Field(pattern=r"^https?://")
    status: int = Field(200, ge=100, le=599)


class Password(BaseModel):
    secret: str = Field(json_schema_extra={"runbook-names": "secret"})


class SqlParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    service: Annotated[str, AfterValidator(service)]
    password: Password | None = None
    there: str = Field("", json_schema_extra={"runbook-proves": "secret"})


class CheckParams(RootModel[list[dict[str, Any]]]):
    pass


class VolumeParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    claim: str


class RowsParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    service: str = Field(pattern=":")


REGISTRY = Registry(
    actions={
        "secret": SecretParams,
        "release": ReleaseParams,
        "command": CommandParams,
        "backup": BackupParams,
        "bucket": BucketParams,
        "check": CheckParams,
    },
    checks={"http": HttpParams, "sql": SqlParams},
    events={"backup"},
    faults={"volume_lost": VolumeParams},
    sentinels={"sql": RowsParams},
    undo={"release": str | ReleaseParams},
)


def lint(case: Path, scratch: Path) -> str:
    """A runbook's mistakes. `runbook.yml` may be left out, `vars.yml` stands for the inventory, any other folder is
    copied into the runbook's; every other `*.yml` is a phase."""
    folder = scratch / "runbooks" / "shop"
    (folder / "phases").mkdir(parents=True)
    for path in sorted(case.iterdir()):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
        elif path.name == "runbook.yml":
            shutil.copy(path, folder)
        elif path.suffix == ".yml" and path.name != "vars.yml":
            shutil.copy(path, folder / "phases")
    if not (folder / "runbook.yml").exists():
        (folder / "runbook.yml").write_text("title: Shop\n")
    variables = yaml.read(case, case / "vars.yml").data if (case / "vars.yml").exists() else {}
    found = sorted(check(scratch, None, variables, REGISTRY), key=lambda d: d.position)
    return "".join(f"{d.severity}: {d.render()}\n" for d in found) or "nothing\n"


KINDS: Mapping[str, Callable[[Path, Path], str]] = {"lint": lint}

CASES = sorted(f"{kind}/{path.name}" for kind in KINDS for path in (HERE / kind).iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, tmp_path: Path) -> None:
    kind, _, _name = case.partition("/")
    try:
        got = KINDS[kind](HERE / case, tmp_path)
    except RunbookError as error:
        got = f"{type(error).__name__}: {error}\n"
    expected = HERE / case / "expected.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(got)
    assert got == expected.read_text()
