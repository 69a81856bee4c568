"""What people do at a Prefect server, as its UI does it: start a job, watch it, cancel it, have it tried again."""

from __future__ import annotations

import time
from typing import Any

import httpx

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
POLL_S = 0.2


class PrefectApi:
    """A server by the address of its API. Questions wait through a server that is away for `patience_s`."""

    def __init__(self, url: str, patience_s: float = 100) -> None:
        self.url, self.patience_s = url, patience_s
        self._client = httpx.Client(base_url=url, timeout=20)

    def close(self) -> None:
        self._client.close()

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            return self._client.get("/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call; SQLite under load answers 503 now and then."""
        until = time.monotonic() + self.patience_s
        while True:
            try:
                answer = self._client.request(method, path, json=body)
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return answer.json() if answer.content else None
                problem = f"{answer.status_code} {answer.text[:200]}"
            except httpx.TransportError as failure:
                problem = repr(failure)
            assert time.monotonic() < until, (path, problem)
            time.sleep(0.5)

    def start(self, job: dict[str, Any], **parameters: Any) -> str:
        """What the form of a kind's deployment does; the id of the run."""
        deployment = self.ask("GET", f"/deployments/name/{job['kind']}/isthmus")
        body = {"parameters": {"job": job, **parameters}}
        run: str = self.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", body)["id"]
        return run

    def run(self, run: str) -> dict[str, Any]:
        """A run as it stands, with its `state`."""
        found: dict[str, Any] = self.ask("GET", f"/flow_runs/{run}")
        return found

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(self.run(run)["state"]["type"])

    def parts(self, run: str) -> list[dict[str, Any]]:
        """The members' runs within a coordinating run, oldest first; `name` is the member."""
        wanted = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}, "limit": 200}
        found: list[dict[str, Any]] = self.ask("POST", "/flow_runs/filter", wanted)
        return sorted(found, key=lambda part: str(part["created"]))

    def states(self, run: str) -> list[dict[str, Any]]:
        """All states that a run has had, oldest first, each with its `timestamp`."""
        found: list[dict[str, Any]] = self.ask("GET", f"/flow_run_states/?flow_run_id={run}")
        return sorted(found, key=lambda state: str(state["timestamp"]))

    def going(self) -> list[str]:
        """All runs that have not ended."""
        wanted = {"flow_runs": {"state": {"type": {"not_any_": sorted(FINAL)}}}, "limit": 200}
        return [found["id"] for found in self.ask("POST", "/flow_runs/filter", wanted)]

    def cancel(self, run: str) -> None:
        """What the UI's "Cancel" does."""
        self._set(run, {"type": "CANCELLING", "name": "Cancelling"}, force=True)

    def retry(self, run: str) -> None:
        """What the UI's "Retry" does."""
        self._set(run, {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}, force=False)

    def end(self, run: str) -> None:
        """Call a run cancelled, whatever it is doing."""
        self._set(run, {"type": "CANCELLED", "name": "Cancelled"}, force=True)

    def _set(self, run: str, state: dict[str, str], *, force: bool) -> None:
        answer = self.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": force})
        assert answer["status"] == "ACCEPT", answer

    def ended(self, run: str, seconds: float) -> dict[str, Any]:
        """Wait for a run's end; its last state."""
        until = time.monotonic() + seconds
        while (found := self.run(run)["state"])["type"] not in FINAL:
            assert time.monotonic() < until, found
            time.sleep(POLL_S)
        return dict(found)

    def completed(self, run: str, seconds: float) -> None:
        """Wait for a run's end, which must be well."""
        state = self.ended(run, seconds)
        assert state["type"] == "COMPLETED", (state, [(part["name"], part["state"]) for part in self.parts(run)])
