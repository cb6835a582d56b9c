"""`plan --offline` and `diff` of a small project without charts: text and JSON as a user sees them, and bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.app import main

CASES = Path(__file__).parent / "offline"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return shutil.copytree(CASES / "project", tmp_path / "project")


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", f"{Path(os.__file__).parent}:/usr/bin:/bin")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--no-color"])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plan.txt", ["plan", "large", "--offline"]),
        ("plan-verbose.txt", ["plan", "small", "--offline", "-v"]),
        ("plan.json", ["plan", "large", "--offline", "--json"]),
        ("diff.txt", ["diff", "small", "large"]),
        ("diff.json", ["diff", "small", "large", "--json"]),
        ("same.txt", ["diff", "small", "small"]),
    ],
)
def test_as_a_user_sees_it(name: str, arguments: list[str], run: Run) -> None:
    code, out, err = run(*arguments)
    assert code == 0, err
    seen = _stable(out)
    if os.environ.get("UPDATE_GOLDEN"):
        (CASES / name).write_text(seen)
    assert seen == (CASES / name).read_text()
    assert "123456789012" not in out + err
    assert "987654321098" not in out + err


def test_two_plans_are_equal(run: Run) -> None:
    first, second = (json.loads(run("plan", "small", "--offline", "--json")[1]) for _ in range(2))
    for document in (first, second):  # a Secret is masked with a key that lives as long as the process
        document.pop("digest")
    assert first == second


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "kind: Deployment",
            "kind: Deploiment",
            "manifests/shop/shop.yaml: Deploiment shop/shop: kind: no Deploiment in apps/v1",
        ),
        (
            "apiVersion: apps/v1",
            "apiVersion: apps/v1beta2",
            "shop.yaml: Deployment shop/shop: apiVersion: apps/v1beta2 has no kind Deployment; apps/v1 has",
        ),
        (
            "audience: staff",
            "audiense: staff",
            'manifests/shop/shop.yaml: Flag shop/basket: spec.audiense: unknown field (did you mean "audience"?)',
        ),
        (
            "audience: staff",
            "audience: nobody",
            "manifests/shop/shop.yaml: Flag shop/basket: spec.audience: should be one of everybody, staff: nobody",
        ),
        (
            "image: shop:1",
            "imagee: shop:1",
            'Deployment shop/shop: spec.template.spec.containers[0].imagee: unknown field (did you mean "image"?)',
        ),
        (
            "spec: {percent: {{ size * 10 }}, ",
            "spec: {",
            'Flag shop/basket: spec: the field "percent" is missing',
        ),
        (
            "replicas: {{ size }}",
            'replicas: "{{ size }}"',
            "Deployment shop/shop: spec.replicas: should be a whole number, is text: 1",
        ),
    ],
)
def test_a_wrong_object_is_told_with_its_place(old: str, new: str, expected: str, project: Path, run: Run) -> None:
    file = project / "runbooks/shop/manifests/shop/shop.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    code, out, err = run("plan", "small", "--offline")
    assert code == 64
    assert expected in err
    assert "1 mistake in the objects" in err
    assert out == ""


def test_a_value_of_a_secret_is_not_in_the_message(project: Path, run: Run) -> None:
    file = project / "runbooks/shop/manifests/shop/shop.yaml"
    file.write_text(file.read_text().replace("stringData: {key:", "data: {key:"))
    code, _, err = run("plan", "small", "--offline", "-e", "api_token=no-base64-at-all")
    assert code == 64
    assert "Secret shop/session: data.key: should be base64" in err
    assert "no-base64" not in err


def test_a_plan_that_asked_nobody_is_not_saved(run: Run) -> None:
    code, _, err = run("plan", "small", "--offline", "--out", "plan.json")
    assert code == 64
    assert "cannot be carried out" in err


def test_without_helm_one_sentence_says_so(project: Path, run: Run) -> None:
    (project / "runbooks/shop/chart").mkdir()
    (project / "runbooks/shop/chart/Chart.yaml").write_text("{apiVersion: v2, name: shop, version: 0.1.0}\n")
    with (project / "runbooks/shop/phases/01-shop.yml").open("a") as file:
        file.write("  - id: release\n    release: {chart: chart, namespace: shop}\n")
    code, _, err = run("plan", "small", "--offline", "-e", "helm_program=/nowhere/helm")
    assert code == 64
    assert err.count("no helm to render the charts with: helm_program (/nowhere/helm) does not exist") == 1


def _stable(text: str) -> str:
    """Digests depend on the engine's key of the day; what they stand for is told beside them."""
    return re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", text)
