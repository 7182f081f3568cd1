"""The rows of benchmarks/uncertainty.py as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

STEPS = (1, 5, 10, 20, 30)
SCALES = ("nodes", "patches", "meshes", "relative")


def table(results: Sequence[dict]) -> str:
    """All parts that there are."""
    parts = {
        part: [row for row in results if row["part"] == part]
        for part in ("steady", "spread", "solids", "rollout", "choice")
    }
    lines = [
        f"One thread of {results[0]['machine']}; means over the seeds, one where no number is given."
        if results
        else "nothing yet"
    ]
    if parts["steady"]:
        lines += [*_in_range(parts["steady"]), *_correlations(parts["steady"]), *_out_of_range(parts["steady"])]
        lines += _deferral(parts["steady"])
    if parts["spread"]:
        lines += _spread(parts["spread"], "Heat conduction")
    if parts["solids"]:
        lines += _spread(parts["solids"], "Plates with holes")
    if parts["rollout"]:
        lines += _rollout(parts["rollout"])
    for pool in dict.fromkeys(row["pool"] for row in parts["choice"]):
        lines += _choice([row for row in parts["choice"] if row["pool"] == pool], pool)
    return "\n".join(lines)


def _by(rows: Sequence[dict], key: str) -> dict[str, list[dict]]:
    return {name: [row for row in rows if row[key] == name] for name in dict.fromkeys(row[key] for row in rows)}


def _mean(rows: Sequence[dict], value: Callable[[dict], float]) -> float:
    return statistics.fmean(value(row) for row in rows)


def _block(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = "|---|" + "--:|" * (len(head) - 1)
    return ["", f"**{title}**", "", f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def _named(name: str, rows: Sequence[dict]) -> str:
    """With the number of seeds, if there are several."""
    return f"{name} ({len(rows)} seeds)" if len(rows) > 1 else name


def _in_range(rows: Sequence[dict]) -> list[str]:
    """Widths and scores in thousandths of the unit of the field, whose RMS is about 15 of them."""
    head = ["method", "seconds", "error", "NLL", "CRPS", "ECE", "AUSE", "in 90 %", "width"]
    head += ["conformal", "(5–95 % of splits)", "width", "whole meshes", "width"]
    cells = []
    for name, some in _by(rows, "method").items():
        m = lambda key, some=some: _mean(some, lambda row: row[key])  # noqa: E731
        low, high = (_mean(some, lambda row, k=k: row["pointwise 5, 95"][k]) for k in (0, 1))
        cells.append(
            [
                _named(name, some),
                f"{m('seconds'):.0f}",
                f"{m('error'):.1%}",
                f"{m('nll'):.2f}",
                f"{1e3 * m('crps'):.2f}",
                f"{m('ece'):.3f}",
                f"{m('ause'):.3f}",
                f"{m('inside'):.1%}",
                f"{1e3 * m('width'):.2f}",
                f"{m('pointwise'):.1%}",
                f"{low:.0%}–{high:.0%}",
                f"{1e3 * m('pointwise width'):.2f}",
                f"{m('simultaneous'):.1%}",
                f"{1e3 * m('simultaneous width'):.2f}",
            ]
        )
    title = f"In range; {rows[0]['nodes']:.0f} nodes; CRPS and widths in thousandths"
    return _block(title, head, cells)


def _correlations(rows: Sequence[dict]) -> list[str]:
    head = ["method", *(f"{name}, {kind}" for name in SCALES for kind in ("Pearson", "ranks", "ceiling"))]
    cells = []
    for method, some in _by(rows, "method").items():
        row = [_named(method, some)]
        for name in SCALES:
            row += [f"{_mean(some, lambda r, n=n: r['correlation'][n]):.2f}" for n in (name, f"{name}, ranks")]
            known = all(r["ceiling"] for r in some)
            row.append(f"{_mean(some, lambda r, n=name: r['ceiling'][n]):.2f}" if known else "–")
        cells.append(row)
    return _block(
        "Correlation of predicted and true error; ceiling: Pearson's, if a sample were the truth", head, cells
    )


def _out_of_range(rows: Sequence[dict]) -> list[str]:
    shifts = list(rows[0]["shifts"])
    cells = []
    for method, some in _by(rows, "method").items():
        cells.append(
            [
                _named(method, some),
                *(
                    f"{_mean(some, lambda r, n=n: r['shifts'][n]['error'] / r['error']):.1f}, "
                    f"{_mean(some, lambda r, n=n: r['shifts'][n]['inside']):.0%}, "
                    f"{_mean(some, lambda r, n=n: r['shifts'][n]['nll']):.3g}"
                    for n in shifts
                ),
            ]
        )
    title = "Out of range: error as a multiple of that in range, share inside the raw 90 % intervals, NLL"
    lines = _block(title, ["method", *shifts], cells)
    flagged = [row for row in rows if "flags" in row]
    cells = []
    for method, some in _by(flagged, "method").items():
        m = lambda shift, key, some=some: _mean(some, lambda row: row["flags"][shift][key])  # noqa: E731
        each = [
            f"{m(n, 'auroc'):.2f}, {m(n, 'flagged'):.0%}; {m(n, 'large'):.0%}, {m(n, 'auroc of large'):.2f}"
            for n in shifts
        ]
        cells.append(
            [_named(method, some), f"{m('in range', 'flagged'):.0%}", *each, f"{m('all', 'auroc of large'):.2f}"]
        )
    head = ["method", "in range", *shifts, "large errors of all"]
    title = (
        "Detector: AUROC of the shift, share flagged; share of errors above the 95 % quantile of those in range, AUROC "
        "of these among the meshes of the shift and those in range"
    )
    return [*lines, *(_block(title, head, cells) if cells else [])]


def _deferral(rows: Sequence[dict]) -> list[str]:
    cells = []
    for method, some in _by(rows, "method").items():
        row = [_named(method, some)]
        for k in range(len(some[0]["deferral"])):
            parts = [r["deferral"][k] for r in some]
            m = lambda key, parts=parts: _mean(parts, lambda p: p[key])  # noqa: E731
            row.append(
                f"{m('worse'):.0%}: {m('solved'):.0%} ({m('solved at random'):.0%}), {m('delivered worse'):.1%}, "
                f"{m('mean error'):.1%}"
            )
        cells.append(row)
    tolerances = [f"tolerance {part['tolerance']:.0%}" for part in rows[0]["deferral"]]
    title = (
        "The solver where the doubt asks for it, at most 10 % delivered worse than the tolerance. Share worse without "
        "it: solved (solved at random for the same rate), delivered worse, mean error left"
    )
    lines = _block(title, ["method", *tolerances], cells)
    for method, some in _by([row for row in rows if "solver" in row], "method").items():
        for where in ("in range", "out of range"):
            parts = [row["solver"][where] for row in some]
            lines += [
                "",
                f"{method}, {where}, tolerance {some[0]['solver']['tolerance']:.0%}, with the detector: "
                f"{_mean(parts, lambda p: p['solved']):.0%} solved, {_mean(parts, lambda p: p['worse']):.0%} delivered "
                f"worse, largest error {max(p['largest error'] for p in parts):.1%}.",
            ]
    return lines


def _spread(rows: Sequence[dict], what: str) -> list[str]:
    """Before and after, each beside the other."""
    shares = ["in 68%", "in 90%", "in 95%"]
    goals = list(rows[0]["calibrated"])
    nodes, follows = [], []
    for method, some in _by(rows, "method").items():

        def across(name: str, form: str, *stages: str, scale: float = 1.0, some=some) -> str:
            return " → ".join(format(scale * _mean(some, lambda r, w=w: r[w][name]), form) for w in stages)

        s, t = (_mean(some, lambda r, k=k: r["factors"][k]) for k in (0, 1))
        both = ("before", "after")
        head = [_named(method, some), f"{_mean(some, lambda r: r['error']):.1%}", f"{s:.1f}"]
        head[-1] += "" if t == 1 else f", {t:.2f}"
        crps = across("crps", ".3g", *both, scale=1e3)
        nodes.append([*head, across("nll", ".2f", *both), crps, across("ece", ".3f", *both)])
        nodes[-1] += [across(name, ".0%", *both) for name in shares]
        follows.append([head[0], *(across(name, ".0%", *both, "calibrated") for name in goals)])
    title = f"{what}; samples as they are → widened by 40 held-out meshes, mean of 10 deals: "
    columns = ["method", "error", "factor of spread, noise", "NLL", "CRPS", "ECE", "in 68 %", "in 90 %", "in 95 %"]
    own = "what follows, share inside Gaussian 90 % intervals → inside intervals calibrated on it"
    return [
        *_block(f"{title}nodes", columns, nodes),
        *_block(f"{title}{own}", ["method", *goals], follows),
    ]


def _rollout(rows: Sequence[dict]) -> list[str]:
    head = ["method", "seconds", *(f"step {k}" for k in STEPS)]
    cells = []
    for method, some in _by(rows, "method").items():
        row = [_named(method, some), f"{_mean(some, lambda r: r['seconds']):.0f}"]
        for k in STEPS:
            names = ("error", "spread", "inside", "nodes", "series")
            error, spread, inside, nodes, series = (_mean(some, lambda r, n=n, k=k: r[n][k - 1]) for n in names)
            row.append(f"{error:.3f}, {spread:.3f}, {inside:.0%}, {nodes:.2f}, {series:.2f}")
        cells.append(row)
    title = (
        "Rollouts of 30 steps: RMS error, RMS spread, share inside 90 %, correlation of spread and "
        "error over nodes and over series"
    )
    return _block(title, head, cells) + _intervals_in_time(rows)


def _intervals_in_time(rows: Sequence[dict]) -> list[str]:
    """Of rows that have them: coverage of the calibrated intervals by step, and what is out of range."""
    rows = [row for row in rows if "conformal" in row]
    if not rows:
        return []
    sets = list(rows[0]["conformal"])
    head = ["method", "flagged in range", *(f"step {k}" for k in STEPS), *sets[1:]]
    cells = []
    for method, some in _by(rows, "method").items():
        row = [_named(method, some), f"{_mean(some, lambda r: r['flagged']['in range']):.0%}"]
        for k in STEPS:
            mean, low, high = (_mean(some, lambda r, k=k, j=j: r["splits"][str(k)][j]) for j in range(3))
            row.append(f"{mean:.1%} ({low:.0%}–{high:.0%})")
        for name in sets[1:]:
            ratio = _mean(some, lambda r, n=name: r["errors"][n] / r["errors"]["in range"])
            inside = _mean(some, lambda r, n=name: statistics.fmean(r["conformal"][n]))
            score, flagged = (_mean(some, lambda r, n=name, what=what: r[what][n]) for what in ("auroc", "flagged"))
            row.append(f"{ratio:.1f}, {inside:.0%}, {score:.2f}, {flagged:.0%}")
        cells.append(row)
    title = (
        "Rollouts: share of series flagged in range (5 % allowed); inside the calibrated 90 % intervals, by step, "
        "mean of 50 splits into 24 and 12 series (5–95 % of them); out of range: error as a multiple of that in "
        "range, share inside, AUROC of the detector, share flagged"
    )
    return _block(title, head, cells)


def _choice(rows: Sequence[dict], pool: str) -> list[str]:
    from uncertainty import ROUNDS

    cells = []
    for strategy, some in _by(rows, "strategy").items():
        row = [_named(strategy, some)]
        for k in range(len(ROUNDS)):
            errors = [r["errors"][k] for r in some]
            spread = f" ± {statistics.stdev(errors):.1%}" if len(errors) > 1 else ""
            hard = f" ({_mean(some, lambda r, k=k: r['hard'][k]):.0f})" if some[0]["hard"][0] is not None else ""
            row.append(f"{statistics.fmean(errors):.1%}{spread}{hard}")
        cells.append(row)
    title = f"Choice of the next runs, {pool}: error by number of runs (hard ones among them)"
    return _block(title, ["strategy", *map(str, ROUNDS)], cells)
