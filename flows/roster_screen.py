"""What `isthmus init` and `isthmus consortium` print."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape

from ..parties.roster import Roster
from .founding import Founded
from .rosters import Change, changes, facts_of
from .terminal import console


def print_json(facts: Any) -> None:
    """One line for a program."""
    sys.stdout.write(json_module.dumps(facts) + "\n")


def show_founded(founded: Founded, *, json: bool) -> None:
    """What `isthmus init` has made."""
    facts = {**founded._asdict(), "folder": str(founded.folder), "file": str(founded.file), "made": list(founded.made)}
    if json:
        print_json(facts)
        return
    lines = [f"[bold]{founded.name}[/]  {founded.role}, in {escape(str(founded.folder))}"]
    lines.append(f"  made         {', '.join(founded.made) or 'nothing: all was there'}")
    if founded.key:
        lines.append(f"  key          {founded.key}")
    lines.append(f"  certificate  {founded.certificate}, until {founded.until}")
    lines.append(f"  hand over    {escape(str(founded.file))}")
    if founded.open_to_others:
        lines.append(f"[yellow]others can enter {escape(str(founded.folder))}[/]: chmod 700 it")
    lines.append("Whoever keeps the roster adds that file; compare the key and the certificate by voice.")
    console.print("\n".join(lines), soft_wrap=True)


def roster_facts(roster: Roster) -> dict[str, Any]:
    """A roster as people and programs read it: fingerprints, and the state of each member."""
    now, signers = datetime.now(UTC), roster.signers()
    facts: dict[str, Any] = {"consortium": roster.consortium, "version": roster.version, "digest": roster.digest()}
    facts |= {"threshold": roster.threshold, "exchanges": {}, "members": {}}
    for (of, name), entry in facts_of(roster).items():
        if of == "exchange":
            facts["exchanges"][name] = entry
        elif of == "member":
            member = roster.members[name]
            state = "revoked" if member.revoked else "expired" if member.expired(now) else "valid"
            signature = "good" if name in signers else "wrong" if name in roster.signatures else "none"
            facts["members"][name] = {**entry, "state": state, "signature": signature}
    return facts


def signature_facts(roster: Roster, before: Roster | None) -> dict[str, Any]:
    """Who has signed, and how many more it takes: by the roster itself, and by the one that was accepted before it."""
    facts: dict[str, Any] = {"version": roster.version, "digest": roster.digest(), "signed": roster.signers()}
    facts["missing"] = max(roster.threshold - len(roster.signers()), 0)
    if before is not None and before.digest() != roster.digest():
        facts["accepted"] = before.version
        facts["missing_of_accepted"] = max(before.threshold - len(roster.signers(before)), 0)
    return facts


def print_roster(facts: dict[str, Any]) -> None:
    """Print what `roster_facts` gives."""
    console.print(f"[bold]{facts['consortium']}[/]  version {facts['version']}, threshold {facts['threshold']}")
    console.print(f"  digest {facts['digest']}", soft_wrap=True)
    for name, entry in facts["exchanges"].items():
        console.print(
            f"exchange {name}  {escape(entry['address'])}\n  certificate {entry['certificate']}", soft_wrap=True
        )
    colours = {"valid": "green", "revoked": "red", "expired": "yellow"}
    words = {"good": "signed", "wrong": "[red]a signature that is not its own[/]", "none": "not signed"}
    for name, entry in facts["members"].items():
        since = f" {entry['revoked']}" if entry["state"] == "revoked" else f" until {entry['until']}"
        state = f"[{colours[entry['state']]}]{entry['state']}[/]{since}"
        console.print(f"member {name}  {entry['role']}, {state}, {words[entry['signature']]}", soft_wrap=True)
        console.print(f"  key         {entry['key']}\n  certificate {entry['certificate']}", soft_wrap=True)


def print_changes(before: Roster | None, differences: list[Change], *, at: Sequence[str] = ()) -> None:
    """Print what differs between an earlier roster and a new one, and whose earlier one it is: `at`."""
    against = f"against version {before.version}" if before else "all of it is new"
    where = f" at {', '.join(at)}" if at else ""
    if not differences:
        console.print(f"nothing changes{where}, {against}", soft_wrap=True)
        return
    console.print(f"what changes{where}, {against}:", soft_wrap=True)
    for change in differences:
        sign = "[green]+[/]" if change.before is None else "[red]-[/]" if change.after is None else "[yellow]~[/]"
        console.print(f"{sign} {change.of} {change.name}", soft_wrap=True)
        olds, news = change.before or {}, change.after or {}
        for field in dict.fromkeys([*olds, *news]):
            old, new = olds.get(field), news.get(field)
            if old != new:
                console.print(
                    f"    {field:<12}{escape(' → '.join(text for text in (old, new) if text))}", soft_wrap=True
                )


def print_missing(facts: dict[str, Any]) -> None:
    """Print who has signed, and how many have not."""
    have = ", ".join(facts["signed"]) or "nobody"
    missing = f"[yellow]{facts['missing']} missing[/]" if facts["missing"] else "[green]complete[/]"
    console.print(f"signed by {have}: {missing}", soft_wrap=True)
    if facts.get("missing_of_accepted"):
        console.print(
            f"of the members in the accepted version {facts['accepted']}: {facts['missing_of_accepted']} missing"
        )


def show_draft(before: Roster | None, draft: Roster, file: Path, *, json: bool) -> None:
    """What a draft changes, and what has to be done with it."""
    differences = changes(before, draft)
    if json:
        changed = [change._asdict() for change in differences]
        print_json({**signature_facts(draft, None), "threshold": draft.threshold, "changes": changed})
        return
    print_changes(before, differences)
    left = len(draft.members) - len(draft.revoked)
    where = escape(str(file))
    console.print(f"\nversion {draft.version} in {where}, to be signed by {draft.threshold} of {left}", soft_wrap=True)
    if draft.threshold * 2 <= left:
        console.print("[yellow]fewer than half of the members could change the roster[/]: --threshold", soft_wrap=True)
    if draft.threshold == left > 1:
        console.print("[yellow]nobody could be revoked without signing it too[/]: --threshold", soft_wrap=True)
    console.print(f"  next  isthmus consortium sign {where} NAME", soft_wrap=True)
