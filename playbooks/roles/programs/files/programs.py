#!/usr/bin/env python3
"""Builds the lab's programs into CACHE/bin, once per version.

    programs.py status CACHE < {"groups": [...], "python": [...]}   what is missing, as JSON
    programs.py build  CACHE < one group                           builds it
    programs.py python CACHE < ["supervisor==4.3.0", ...]           installs these into CACHE/venv

A group: name, version, module (folder of modules/), packages, and perhaps flags (for the linker), output, share and
copy_of: a module whose source is copied and built with our module files, which may hold older versions than its own.
Only the standard library: the system's python3 runs it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

MODULES = Path(__file__).with_name("modules")
EXTERNAL_SECRETS = "github.com/external-secrets/external-secrets"


def main() -> None:
    command, cache, spec = sys.argv[1], Path(sys.argv[2]), json.load(sys.stdin)
    if command == "status":
        missing = [g["name"] for g in spec["groups"] if not built(cache, g)]
        venv_there = stamp(cache, "venv", spec["python"]).exists() and (cache / "venv/bin/supervisord").exists()
        print(json.dumps({"missing": missing, "python_missing": not venv_there}))
    elif command == "build":
        build(cache, spec)
    else:
        install_python(cache, spec)


def built(cache: Path, group: dict) -> bool:
    return stamp_of(cache, group).exists() and all((cache / "bin" / p).exists() for p in programs(group))


def build(cache: Path, group: dict) -> None:
    for folder in ("bin", "share", "stamps", "log", "src"):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    source = cache / "src" / group["module"]
    if group["module"] == "external-secrets":
        prepare_external_secrets(source, group["version"])
    else:
        if "copy_of" in group:
            copy_module(group["copy_of"], group["version"], source)
        shutil.copytree(MODULES / group["module"], source, dirs_exist_ok=True)
    output = str(cache / "bin" / group.get("output", "")) + ("" if "output" in group else "/")
    link = f"-s -w {group.get('flags', '')}".strip()
    go(source, "build", "-trimpath", "-ldflags", link, "-o", output, *group["packages"])
    for shared in group.get("share", []):
        module, file = shared.split(":")
        folder = go(source, "list", "-m", "-f", "{{.Dir}}", module).strip()
        shutil.copyfile(Path(folder, file), cache / "share" / Path(file).name)
    stamp_of(cache, group).touch()


def programs(group: dict) -> list[str]:
    return [group["output"]] if "output" in group else [p.rsplit("/", 1)[-1] for p in group["packages"]]


def stamp_of(cache: Path, group: dict) -> Path:
    sums = MODULES / group["module"] / "go.sum"
    inputs = [
        group["version"],
        group.get("flags", ""),
        group["packages"],
        *group.get("share", []),
        *([group["copy_of"]] if "copy_of" in group else []),
        sums.read_text() if sums.exists() else "",
    ]
    return stamp(cache, programs(group)[0], inputs)


def stamp(cache: Path, name: str, inputs: object) -> Path:
    return cache / "stamps" / f"{name}-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]}"


def go(folder: Path, *args: str) -> str:
    # GOFLAGS: a build depends on nothing but the module files (no VCS stamp, no changed go.sum)
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}
    try:
        return subprocess.run(
            ["go", *args], cwd=folder, env=environment, check=True, text=True, capture_output=True
        ).stdout
    except FileNotFoundError:
        sys.exit("Go is not installed or not on PATH. Install Go 1.26 or newer.")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"go {' '.join(args[:2])} in {folder} failed:\n{failed.stderr[-3000:]}")


def prepare_external_secrets(source: Path, version: str) -> None:
    """A copy of the module whose two register packages link only the providers used here.

    All providers together take minutes to build, and the checksum of one module they want is not served. Files of
    the module cache can not be overlaid, so it is a copy.
    """
    copy_module(EXTERNAL_SECRETS, version, source)
    for kind, wanted in {"provider": "fake kubernetes vault", "generator": "fake password uuid vault"}.items():
        imports = "\n".join(f'\t_ "{EXTERNAL_SECRETS}/pkg/{kind}/{name}"' for name in wanted.split())
        (source / f"pkg/{kind}/register/register.go").write_text(f"package register\n\nimport (\n{imports}\n)\n")
    ldap = "github.com/hashicorp/vault/api/auth/ldap"
    with (source / "go.mod").open("a") as text:
        text.write(f"\nreplace {ldap} => {ldap} v0.10.0\n")
    with (source / "go.sum").open("a") as text:
        text.write(f"{ldap} v0.10.0 h1:5sdJYikTVD8auisNJpOijrr/PfnHgdTZFdFrweFAtbs=\n")
        text.write(f"{ldap} v0.10.0/go.mod h1:PvOSxTn6XcamOyIDKZexEVBiaTD6z7uqAg2r0/kgLr4=\n")


def copy_module(module: str, version: str, source: Path) -> None:
    """The module's own files, writable."""
    shutil.rmtree(source, ignore_errors=True)
    kept = json.loads(go(MODULES / "cluster", "mod", "download", "-json", f"{module}@{version}"))["Dir"]
    shutil.copytree(kept, source, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(source):
        Path(folder).chmod(0o700)


def install_python(cache: Path, requirements: list[str]) -> None:
    venv = cache / "venv"
    (cache / "stamps").mkdir(parents=True, exist_ok=True)
    if not (venv / "bin/pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin/pip"), "install", "--quiet", *requirements], check=True)
    stamp(cache, "venv", requirements).touch()


if __name__ == "__main__":
    main()
