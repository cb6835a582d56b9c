#!/usr/bin/python
"""Ansible module: several files at once, given as text.

The template module takes one file a task, and a task takes a third of a second even when nothing changes; the lab has
a dozen files and should answer "nothing to do" within seconds.
"""

import hashlib
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: lab_files
short_description: Several files at once, given as text
options:
  directory: {description: Where they go; it exists., type: path, required: true}
  files: {description: "Names, each with its text.", type: dict, required: true}
  keep: {description: Names that are only written when they are missing., type: list, elements: str, default: []}
  mode: {description: Of each file., type: str, default: "0644"}
"""
RETURN = """
digest: {description: Of all texts; changes when any of them does., type: str}
written: {description: The names that were written., type: list}
"""


def main() -> None:
    options = {
        "directory": {"type": "path", "required": True},
        "files": {"type": "dict", "required": True},
        "keep": {"type": "list", "elements": "str", "default": []},
        "mode": {"type": "str", "default": "0644"},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    directory, files, keep = Path(module.params["directory"]), module.params["files"], module.params["keep"]
    mode = int(module.params["mode"], 8)
    wanted = {name: text for name, text in files.items() if name not in keep or not (directory / name).exists()}
    different = [name for name, text in wanted.items() if not is_as(directory / name, text, mode)]
    if not module.check_mode:
        for name in different:
            write(directory / name, files[name], mode)
    digest = hashlib.sha256("\0".join(f"{n}\0{t}" for n, t in sorted(files.items())).encode()).hexdigest()[:16]
    module.exit_json(changed=bool(different), written=different, digest=digest)


def is_as(path: Path, text: str, mode: int) -> bool:
    return path.exists() and path.read_text() == text and path.stat().st_mode & 0o7777 == mode


def write(path: Path, text: str, mode: int) -> None:
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text)
    partial.chmod(mode)
    os.replace(partial, path)


if __name__ == "__main__":
    main()
