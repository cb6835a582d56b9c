"""`python -m engine.scheduled` as a job's pod runs it: PostgreSQL over TCP, credentials in files, moto's bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid

import boto3
import pyrage
import pytest

from engine.adapters.container import Container
from engine.core.action import Deadline
from engine.core.redaction import Redactor
from engine.errors import PermanentError, TemporaryError
from tests.fakes.signing import make_key

PASSWORD = "canary-4c11d8:back\\slash"


class Job:
    """One job's mounts, and what it leaves."""

    def __init__(self, postgres, moto, folder) -> None:
        self._postgres, self.folder, self.bucket = postgres, folder, f"s-{uuid.uuid4().hex[:12]}"
        self.database = f"s{uuid.uuid4().hex[:12]}"
        self.role = f"r{uuid.uuid4().hex[:12]}"
        self._psql(f"""CREATE ROLE "{self.role}" LOGIN CREATEDB PASSWORD '{PASSWORD}'""")
        self._psql(f'GRANT pg_read_all_data, shop TO "{self.role}"')
        self._psql(f'CREATE DATABASE "{self.database}" OWNER shop')
        self._psql("CREATE TABLE goods AS SELECT generate_series(1, 500) AS id", self.database)
        keys = {"access_key": "access", "secret_key": "secret-of-the-store"}
        self.s3 = boto3.client(
            "s3", endpoint_url=moto, region_name="us-east-1",
            aws_access_key_id=keys["access_key"], aws_secret_access_key=keys["secret_key"],
        )  # fmt: skip
        self.s3.create_bucket(Bucket=self.bucket)
        identity = pyrage.x25519.Identity.generate()
        signing, signers = make_key(folder)
        self.identity = str(identity)
        self._mount("credentials", username=self.role, password=PASSWORD)
        self._mount("store", **keys)
        self._mount(
            "keys",
            recipients=str(identity.to_public()),
            identity=self.identity,
            signing_key=signing.read_text(),
            allowed_signers=signers.read_text(),
        )
        (folder / "memory").mkdir()
        (folder / "tmp").mkdir()
        self.configuration = {
            "source": {"namespace": "shop", "pod": "postgresql-0", "database": self.database, "user": self.role},
            "host": postgres.host, "port": postgres.port,
            "bucket": self.bucket, "prefix": "daily", "endpoint": moto, "seconds": 60,
            "credentials": str(folder / "credentials"), "store_credentials": str(folder / "store"),
            "keys": str(folder / "keys"), "memory": str(folder / "memory"),
        }  # fmt: skip

    def run(self, job: str = "backup-29000000", **changed) -> subprocess.CompletedProcess:
        config = self.folder / "backup.json"
        config.write_text(json.dumps({**self.configuration, **changed}))
        env = {"PATH": os.environ["PATH"], "JOB_NAME": job, "TMPDIR": str(self.folder / "tmp")}
        argv = [sys.executable, "-m", "engine.scheduled", "--config", str(config)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        told = done.stdout + done.stderr
        assert not [s for s in (PASSWORD, "secret-of-the-store", self.identity) if s in told]
        assert list((self.folder / "memory").iterdir()) == []
        assert list((self.folder / "tmp").iterdir()) == []
        return done

    def keys(self) -> list[str]:
        return sorted(o["Key"] for o in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", []))

    def databases(self) -> list[str]:
        return self._psql("SELECT datname FROM pg_database WHERE datname LIKE 'runbook%'").split()

    def _mount(self, name: str, **values: str) -> None:
        (self.folder / name).mkdir()
        for file, text in values.items():
            (self.folder / name / file).write_text(text)

    def _psql(self, query: str, database: str = "shop") -> str:
        p = self._postgres
        argv = ["psql", "-XAtq", "-h", p.socket, "-p", str(p.port), "-U", p.admin, "-d", database, "-c", query]
        return subprocess.run(argv, user=p.admin, cwd="/", check=True, capture_output=True, text=True).stdout


@pytest.fixture
def job(postgres, moto, tmp_path):
    return Job(postgres, moto, tmp_path)


def test_taken_proved_by_a_restore_and_told(job):
    done = job.run()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["how"], told["tables"], told["rows"]) == ("restore", 1, 500)
    name = f"daily/postgresql/shop/postgresql-0/{job.database}/backup-29000000_backup"
    assert job.keys() == [f"{name}.dump.age", f"{name}.manifest.json", f"{name}.proof.json"]
    assert job.databases() == []
    assert job.run().stdout == done.stdout, "the pod of the same job started again goes on with what is there"
    assert job.run("backup-29001440").returncode == 0
    assert len(job.keys()) == 6


def test_a_wrong_password_is_told_and_leaves_nothing(job):
    (job.folder / "credentials/password").write_text("another")
    done = job.run()
    assert done.returncode == 5
    assert "password authentication failed" in done.stderr
    assert job.keys() == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"port": 0}, "backup.json: port: Input should be greater than 0"),
        ({"prot": 1}, "backup.json: prot: Extra inputs are not permitted"),
        ({"keys": "/nowhere"}, "/nowhere/recipients cannot be read: No such file or directory"),
    ],
)
def test_a_configuration_that_is_wrong_names_the_place(job, changed, told):
    done = job.run(**changed)
    assert done.returncode == 64
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_silent_child_and_its_children_are_killed_at_the_deadline(tmp_path):
    children = tmp_path / "children"
    script = f"sleep 61 & echo $! >{children}; echo $$ >>{children}; wait"
    began = time.monotonic()
    with pytest.raises(TemporaryError, match="the deadline passed"):
        list(Container({}, Redactor()).exec("shop", "pod", ["sh", "-c", script], deadline=Deadline(1)))
    assert time.monotonic() - began < 10
    for pid in children.read_text().split():
        state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False).stdout
        assert state.strip()[:1] in ("", "Z")


def test_the_end_of_a_child_is_told(tmp_path):
    container, argv = Container({"X": "y"}, Redactor()), ["sh", "-c", "cat; echo $X; echo no >&2; exit 3"]
    pieces = container.exec("shop", "pod", argv, stdin=iter([b"a", b"b"]), deadline=Deadline(10))
    assert next(pieces) in (b"ab", b"a")
    with pytest.raises(PermanentError, match="sh for shop/pod: exit 3: no"):
        list(pieces)
    with pytest.raises(PermanentError, match="absent for shop/pod cannot be started: No such file"):
        list(container.exec("shop", "pod", ["absent"], deadline=Deadline(10)))


def test_an_error_of_what_goes_in_ends_it_and_is_raised():
    def broken():
        yield b"a"
        raise PermanentError("decrypts to something else")

    with pytest.raises(PermanentError, match="decrypts to something else"):
        list(Container({}, Redactor()).exec("shop", "pod", ["cat"], stdin=broken(), deadline=Deadline(10)))
