"""The one flow that a party runs: it commands the party's vault, one task a phase, and never holds a row.

What these flows and tasks raise goes into the Prefect server's database, so `sealed` lets only errors out whose words
are made from a code and the job's own names. Anything else is written to the coordinator's own log and becomes
``internal``.
"""

import logging
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from ..parties.errors import InternalError, IsthmusError
from ..parties.events import Phase
from .jobs import Job
from .launch import Here
from .vault_handle import Vault

P = ParamSpec("P")
R = TypeVar("R")

HERE: ContextVar[Here] = ContextVar("isthmus_here")
_VAULT: ContextVar[Vault] = ContextVar("isthmus_vault")
_log = logging.getLogger("isthmus.coordinator")


def sealed(body: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Let out only public errors, raised afresh, so that no cause and no context travels with them."""

    @wraps(body)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        public: IsthmusError
        try:
            return await body(*args, **kwargs)
        except IsthmusError as error:
            public = error.afresh()
        except Exception:
            _log.exception("a fault of ours")
            public = InternalError("internal", party="the coordinator")
        raise public

    return wrapper


@task(name="phase", task_run_name="{phase}", cache_policy=NO_CACHE, persist_result=False)
@sealed
async def command(phase: str) -> None:
    """Have the party's vault do one phase."""
    await _VAULT.get().phase(Phase(phase))


@flow(name="party", flow_run_name="{party}", validate_parameters=False, persist_result=False)
@sealed
async def party_flow(job: Job, party: str, phases: Sequence[str]) -> None:
    """Start one party's vault and take it through the phases of a job."""
    vault = await HERE.get().start(party)
    _VAULT.set(vault)
    for phase in phases:
        await command(phase)
