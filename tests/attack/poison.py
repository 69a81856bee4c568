"""What a hostile Prefect server names to have it run, each with a canary: a file that appears if it runs."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

MARK = "markedpoison7731"


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.open, (self._path, os.O_CREAT | os.O_WRONLY, 0o666))


class Poison:
    """Canaries in `folder`, and the words of a server that would make them sing."""

    def __init__(self, folder: Path) -> None:
        self.evil, self.canaries = folder / "evil", folder / "canaries"
        self.evil.mkdir(parents=True)
        self.canaries.mkdir()
        self.canaries.chmod(0o777)
        for name in ("evil", "sitecustomize", "usercustomize", "isthmus", "prefect", "torch"):
            (self.evil / f"{name}.py").write_text(f"open({str(self.canaries / name)!r}, 'w').close()\n")
        self.command = f"touch {self.canaries / 'command'}"
        self.pickle = pickle.dumps(_Touch(str(self.canaries / "pickle")))
        self.stored = self.evil / "result"
        self.stored.write_bytes(self._record())

    def _record(self) -> bytes:
        """A file as Prefect stores a result, with the pickle in it."""
        blob = base64.encodebytes(self.pickle).decode()
        from prefect.results import ResultRecordMetadata
        from prefect.serializers import PickleSerializer

        metadata = ResultRecordMetadata(
            storage_key=str(self.stored), expiration=None, serializer=PickleSerializer(picklelib="pickle")
        )
        import json

        return json.dumps({"metadata": metadata.model_dump(mode="json"), "result": blob}).encode()

    @property
    def reference(self) -> dict[str, Any]:
        """A state's data: where Prefect finds the result, to be unpickled."""
        serializer = {"type": "pickle", "picklelib": "pickle", "picklelib_version": None}
        return {"storage_key": str(self.stored), "expiration": None, "serializer": serializer, "storage_block_id": None}

    def state(self) -> dict[str, Any]:
        """What a state may carry beside its type."""
        return {"data": self.reference, "message": MARK, "name": MARK, "state_details": {"cache_key": MARK}}

    def variables(self) -> dict[str, Any]:
        """A job's variables, of process, container and cluster."""
        environment = {
            "PYTHONPATH": str(self.evil),
            "PYTHONSTARTUP": str(self.evil / "evil.py"),
            "PYTHONHOME": str(self.evil),
            "LD_PRELOAD": str(self.evil / "evil.so"),
            "BASH_ENV": str(self.evil / "evil.py"),
            "PREFECT__FLOW_ENTRYPOINT": f"{self.evil / 'evil.py'}:flow",
            "PREFECT_RESULTS_DEFAULT_SERIALIZER": "pickle",
            "ISTHMUS_VAULT_HOME": str(self.evil),
        }
        return {
            "command": self.command,
            "env": environment,
            "image": "evil.example/evil",
            "working_dir": str(self.evil),
            "entrypoint": f"{self.evil / 'evil.py'}:flow",
            "stream_output": True,
        }

    def words(self) -> dict[str, Any]:
        """What may stand beside anything that a server says."""
        steps = "prefect.deployments.steps"
        return {
            **self.variables(),
            "job_variables": self.variables(),
            "base_job_template": {"job_configuration": self.variables(), "variables": {}},
            "path": str(self.evil),
            "pull_steps": [
                {f"{steps}.run_shell_script": {"script": self.command}},
                {f"{steps}.set_working_directory": {"directory": str(self.evil)}},
                {"os.system": {"command": self.command}},
            ],
            "infrastructure_document_id": str(uuid4()),
            "storage_document_id": str(uuid4()),
            "infrastructure_pid": "1",
            "result": self.reference,
            "data": self.reference,
            "blob": base64.b64encode(self.pickle).decode(),
            "encoding": "cloudpickle",
        }

    def references(self) -> list[Any]:
        """What may stand in the place of a value, for a worker that resolves it."""
        return [
            {"$ref": {"block_document_id": str(uuid4())}},
            {"$ref": "#/definitions/evil"},
            {"__prefect_kind": "json", "value": "{}"},
            {
                "__prefect_kind": "jinja",
                "template": "{{ cycler.__init__.__globals__.os.system('" + self.command + "') }}",
            },
            {"__prefect_kind": "workspace_variable", "variable_name": "evil"},
            "{{ prefect.blocks.secret.evil }}",
            "{{ prefect.variables.evil }}",
            f"$(touch {self.canaries / 'shell'})",
            f"`touch {self.canaries / 'shell'}`",
            f"; touch {self.canaries / 'shell'} #",
            f"__import__('os').system('{self.command}')",
            self.reference,
            {"encoding": "cloudpickle", "blob": base64.b64encode(self.pickle).decode()},
            {"py/object": "evil.Evil"},
            {"__class__": "evil.Evil"},
        ]

    def sung(self) -> list[str]:
        """The canaries that have sung."""
        return sorted(path.name for path in self.canaries.iterdir())

    def sings(self) -> bool:
        """Whether the canaries sing where somebody does run these things; they are quiet again afterwards."""
        subprocess.run(["sh", "-c", self.command], check=True)
        run = {"cwd": self.evil, "check": True, "env": {**os.environ, "PYTHONPATH": str(self.evil)}}
        subprocess.run([sys.executable, "-c", "import evil"], **run)  # type: ignore[call-overload]
        os.close(pickle.loads(self.pickle))  # noqa: S301
        sung = set(self.sung())
        for path in self.canaries.iterdir():
            path.unlink()
        return {"command", "evil", "sitecustomize", "pickle"} <= sung
