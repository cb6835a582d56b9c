"""Fault 37, shell injection: there is no shell to inject into. Read from the source, so nobody can forget it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "engine"
STARTERS = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
OS_STARTERS = ("system", "popen", "exec", "spawn", "posix_spawn", "fork")
MAY_START = {
    "adapters/launcher.py": "the one place that starts children",
    "adapters/launch_child.py": "becomes the program",
    "adapters/ansible_child.py": "counts a playbook's tasks, below the launcher",
    "load/inventory.py": "ansible-inventory, which changes nothing, before there is a run",
}


def calls(tree):
    """(object, name, keywords) of every call of an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            value = node.func.value
            yield (value.id if isinstance(value, ast.Name) else ""), node.func.attr, node


def offences(name, source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("subprocess", "os", "pty", "pexpect"):
            names = {alias.name for alias in node.names} & (STARTERS | set(OS_STARTERS))
            if names:
                yield f"{name}:{node.lineno} imports {', '.join(sorted(names))} by name, which hides its calls"
    for owner, called, node in calls(tree):
        starts = (owner == "subprocess" and called in STARTERS) or (owner == "os" and called.startswith(OS_STARTERS))
        if starts and name not in MAY_START:
            yield f"{name}:{node.lineno} starts a process past the launcher: {owner}.{called}"
        if starts and any(k.arg == "shell" for k in node.keywords):
            yield f"{name}:{node.lineno} uses a shell"
        if starts and node.args and isinstance(node.args[0], ast.JoinedStr | ast.Constant | ast.BinOp):
            yield f"{name}:{node.lineno} starts a command line, not a list of arguments"
        if owner == "os" and called in ("system", "popen"):
            yield f"{name}:{node.lineno} uses a shell: os.{called}"


def test_fault_37_no_shell_and_no_process_past_the_launcher():
    found = [o for f in ENGINE.rglob("*.py") for o in offences(str(f.relative_to(ENGINE)), f.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['x'])",
        "import os\nos.system('x')",
        "from subprocess import run\n",
        "import os\nos.execvp('sh', ['sh'])",
    ],
)
def test_the_reading_finds_what_it_must(source):
    assert list(offences("checks/x.py", source))


@pytest.mark.parametrize("call", ["['x'], shell=True", "'x ' + y", "f'x {y}'"])
def test_the_reading_finds_a_shell_also_where_processes_may_start(call):
    assert list(offences("adapters/launcher.py", f"import subprocess\nsubprocess.run({call})"))
