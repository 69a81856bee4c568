"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Homes = Annotated[
    Path, Parameter(name="--homes", env_var="ISTHMUS_HOMES", help="Folder with one home a party.", show_default=True)
]
Runs = Annotated[
    Path, Parameter(name="--runs", env_var="ISTHMUS_RUNS", help="Folder for runs and reports.", show_default=True)
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print the same facts as JSON.")]
Flag = Annotated[bool, Parameter(negative="")]
