"""`playbook` with real Ansible: one task writes a file, one would tell a secret; the author's undo removes the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from engine.actions.playbook import PlaybookAction, PlaybookParams
from engine.adapters.ansible import AnsiblePlaybooks, HostRecords
from engine.adapters.launcher import ProcessLauncher
from engine.core.action import Finding
from engine.core.redaction import Redactor
from tests.contract.conformance.subject import ENVIRONMENT, STEP, Subject
from tests.fakes.inputs import FolderInputs

CANARY = "canary-7f3a9c51d2"
_PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Tell {{ token }}
      ansible.builtin.debug: {msg: "the token is {{ token }}"}
    - name: Write
      ansible.builtin.copy: {content: "{{ word }}", dest: FILE, mode: "0600"}
"""
_UNDO = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Remove
      ansible.builtin.file: {path: FILE, state: absent}
"""


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
    project, file, redactor = tmp_path / "project", tmp_path / "made", Redactor()
    (project / "playbooks").mkdir(parents=True)
    for name, text in (("play", _PLAY), ("undo", _UNDO)):
        (project / "playbooks" / f"{name}.yml").write_text(text.replace("FILE", str(file)))
    here = f"{{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}"
    (project / "hosts.yml").write_text(f"all:\n  hosts:\n    here: {here}\n")
    records = HostRecords(tmp_path / "records")
    action = PlaybookAction(
        AnsiblePlaybooks(ProcessLauncher(tmp_path / "state", redactor, "conformance"), redactor, "conformance"),
        records,
        lambda _spec, _ctx: Finding(True, "well"),
        ENVIRONMENT,
        "hosts.yml",
    )
    token = redactor.register(CANARY)

    def half(_change) -> None:
        records.write(STEP, {"interrupted": True, "parts": {}})
        file.write_text("wo")

    yield Subject(
        action=action,
        params=PlaybookParams(path="playbooks/play.yml", vars={"word": "word", "token": token}),
        world=lambda: {"file": file.read_text()} if file.exists() else {},
        wanted={"file": "word"},
        disturb=half,
        canaries=lambda: [CANARY],
        stored=lambda: b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()),
        redactor=redactor,
        given={"inputs": FolderInputs(project), "undo_params": "playbooks/undo.yml"},
        cuts=(0, 1, 3),
    )
