"""Pieces of the report's page. What they are given as HTML is escaped already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from string import Template

TALL_LINES = 24  # of a table: longer ones scroll
HELD_BACK = '<span class="held">·</span>'
METRICS = {  # by their names in events, in the order of a page
    "auc": "AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "prevalence": "share with the outcome",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
    "c_index": "C-index",
}


def table(header: Sequence[str], lines: Sequence[Sequence[str]], strong: Sequence[bool] = ()) -> str:
    """A table that scrolls sideways where the screen is narrow, and by itself where it is long.

    The lines marked `strong` stand out.
    """
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = ""
    for place, cells in enumerate(lines):
        mark = ' class="strong"' if place < len(strong) and strong[place] else ""
        body += f"<tr{mark}>" + "".join(f"<td{_number(cell)}>{cell}</td>" for cell in cells) + "</tr>"
    shape = "wide tall" if len(lines) > TALL_LINES else "wide"
    return f'<div class="{shape}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _number(cell: str) -> str:
    return ' class="n"' if cell.lstrip("≈≤+- ")[:1].isdigit() else ""


def bar(value: int | float | None, most: int | float) -> str:
    """A bar as long as the value's share of the most."""
    share = 100 * (value or 0) / most if most else 0
    return f'<span class="bar" style="width:{share:.1f}%"></span>'


def count_text(value: int | None) -> str:
    """A number of rows, or that a policy withholds it."""
    return "withheld" if value is None else f"{value:,}"


def figure(svg: str, caption: str = "", *, wide: bool = False) -> str:
    """A plot with its caption."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{"full" if wide else "half"}">{svg}{words}</figure>'


def items(lines: Iterable[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{item}</li>" for item in lines) + "</ul>"


PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #22262a; --faint: #8b949c; --line: #dfe3e6; --paper: #fff; --wash: #f4f6f7;
  --together: #0072b2; --first: #c25400; --second: #00805d; --third: #a8447f; --fourth: #8f6b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --faint: #87919a; --line: #343a40; --paper: #15181b;
  --wash: #1e2226; --together: #56b4e9; --first: #f08a3c; --second: #2fc59a; --third: #e39ac4; --fourth: #e3bd3f; } }
@media print { :root { color-scheme: light; --ink: #000; --faint: #777; --line: #ccc; --paper: #fff; --wash: #fff;
  --together: #0072b2; --first: #c25400; --second: #00805d; --third: #a8447f; --fourth: #8f6b00; }
  section { break-inside: avoid; } .wide.tall { max-height: none; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.15rem; }
p { margin: .5rem 0; }
.purpose, .facts { color: var(--faint); overflow-wrap: anywhere; }
.headline { margin: 1rem 0; font-size: 1.3rem; line-height: 1.35; font-weight: 600; color: var(--together); }
.note { padding: .5rem .75rem; border-left: 3px solid var(--first); background: var(--wash); font-size: .95rem; }
.wide { overflow-x: auto; }
.tall { max-height: 30rem; margin: .75rem 0; overflow-y: auto; }
.tall table { margin: 0; }
.tall thead th { position: sticky; top: 0; background: var(--paper); }
.tall tr.strong td { position: sticky; bottom: 0; background: var(--paper); }
.held { color: var(--faint); }
h3 { margin: 1.5rem 0 .25rem; font-size: 1rem; }
table { width: 100%; margin: .75rem 0; border-collapse: collapse; font-size: .95rem; }
th { text-align: left; font-weight: 600; color: var(--faint); font-size: .85rem; vertical-align: bottom; }
th, td { padding: .35rem 1rem .35rem 0; border-bottom: 1px solid var(--line); }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.strong td { font-weight: 700; color: var(--together); }
code { font-size: .8rem; overflow-wrap: anywhere; word-break: break-all; }
.bar { display: inline-block; height: .6rem; min-width: 1px; background: var(--together); border-radius: 2px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
td:has(> .bar) { width: 25%; min-width: 5rem; }
td:last-child { padding-right: 0; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { margin: .75rem 0; }
figure.full { max-width: 44rem; }
figure.half { flex: 1 1 18rem; max-width: 26rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
figcaption { color: var(--faint); font-size: .9rem; text-align: center; }
ul { padding-left: 1.2rem; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="purpose">$purpose</p>
<p class="headline">$headline</p>
<p class="facts">$facts</p>
$notes
$sections
</main>
</body>
</html>
""")
