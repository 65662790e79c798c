"""The page of one run: a verdict, the numbers, the figures, and what the words mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tta.report.figures import MOST_DOMAIN_ROWS, domain_rows, figures
from tta.report.panels import COST_PANELS, PANELS
from tta.report.render import Card, Tile, make_card, render, write_atomically
from tta.report.run import Run, read_run
from tta.report.verdict import count, gain, paired_accuracy, percent, points, write_verdict

CAPTIONS = {
    "accuracy": "Accuracy over the last samples (the window). Bands are domains; the rows below show where the run was "
    "collapsed or below source, and each reset.",
    "estimates": "Label-free estimates of accuracy, means over the window; the true accuracy, where it is known, shows "
    "how far to trust them.",
    "domains": "Online accuracy on each domain's samples, adapted beside frozen.",
    "classes": "How the predictions spread over the classes while the stream runs. One dark row and an empty rest, "
    "where the other maps are spread out, is a collapse.",
    "calibration": "Bars below the diagonal are over-confident.",
}
UNLABELLED = "Without labels, agreement with the frozen source model stands in for accuracy. "
MANY_DOMAINS = f" The {MOST_DOMAIN_ROWS} domains with the largest difference; the table has all."
ALTS = {
    "accuracy": "Line chart of window accuracy against samples seen, adapted and frozen source, domains and events.",
    "estimates": "Line chart of label-free estimates of accuracy against samples seen, and of the true one, if known.",
    "domains": "Bar chart of accuracy per domain, adapted beside frozen source. The table below has every value.",
    "classes": "Heat maps of the share of each class over the stream: adapted, frozen source, true labels, if known.",
    "calibration": "Reliability diagram: accuracy in ten bins of confidence, beside right and wrong samples per bin.",
    "adapter": "Line charts of the values that the method itself logged.",
    "work": "Line chart of the samples passed forward and backward through the model.",
    "speed": "Line chart of the samples adapted per second.",
    "memory": "Line chart of the peak memory.",
}


@dataclass(frozen=True)
class Section:
    """A part of the page: heading, figures, and what to say when there are none."""

    key: str
    title: str
    cards: tuple[Card, ...]
    absent: str


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder: one page without external requests.

    Args:
        run_folder: A folder that `tta adapt` wrote. An existing page is replaced atomically.

    Returns:
        The path of the page.

    Raises:
        InputError: The folder cannot be read or written.
    """
    run = read_run(run_folder)
    return write_atomically(run.path / "report.html", render_report(run))


def render_report(run: Run) -> str:
    """The page of a run as HTML text."""
    verdict = write_verdict(run)
    return render(
        "report.html",
        title=f"{run.text('adapter')} on {run.text('stream')}",
        verdict=verdict,
        facts=_facts(run),
        notices=_notices(run),
        tiles=_tiles(run),
        sections=_sections(run, verdict.sentence),
        domains=[(name, count(n), percent(a), percent(s), _difference(a, s)) for name, n, a, s in domain_rows(run)],
        costs=_costs(run),
        config=run.config,
        versions=run.summary.get("versions") or {},
    )


def _facts(run: Run) -> list[tuple[str, str]]:
    arguments = run.summary.get("adapter_arguments")
    facts = [(name, run.text(name)) for name in ("model", "order", "protocol", "seed")]
    facts += [(name, count(run.number(name))) for name in ("samples", "batches")]
    facts.append(("classes", count(run.number("num_classes"))))
    return [*facts, ("arguments", json.dumps(arguments, ensure_ascii=False))] if arguments else facts


def _notices(run: Run) -> list[str]:
    notices = []
    if run.number("flagged"):
        notices.append(f"{count(run.number('flagged'))} samples held non-finite pixels and taught the model nothing.")
    if run.number("skipped_steps"):
        notices.append(f"{count(run.number('skipped_steps'))} optimiser steps were skipped for a non-finite gradient.")
    accuracy, paired = run.number("accuracy"), run.number("accuracy_paired")
    if accuracy is not None and paired is not None and abs(accuracy - paired) > 1e-9:
        notices.append(
            "The frozen source model ran on a part of the samples; both accuracies are compared on that part "
            f"({percent(paired)} adapted there, {percent(accuracy)} on all samples)."
        )
    return [*notices, *(f"{run.text('adapter')}, {note}." for note in run.summary.get("notes") or [])]


def _tiles(run: Run) -> list[Tile]:
    difference = gain(run)
    tone = "neutral" if difference is None or abs(difference) < 0.0005 else "good" if difference > 0 else "bad"
    memory = run.number("cost", "peak_memory_mb")
    device = run.text("cost", "device") + ("" if memory is None else f", peak {count(memory)} MB")
    nll, source = run.number("nll"), percent(run.number("source_accuracy"))
    return [
        Tile("Online accuracy", percent(run.number("accuracy")), f"{count(run.number('samples'))} samples"),
        Tile(
            "Points over source",
            points(difference),
            "no comparison" if difference is None else f"{percent(paired_accuracy(run))} against {source}",
            tone,
        ),
        Tile("Calibration error", percent(run.number("ece")), "NLL " + ("unknown" if nll is None else f"{nll:.3g}")),
        _collapse_tile(run),
        Tile("Resets", count(run.number("resets")), f"{count(run.number('skipped_steps'))} steps skipped"),
        Tile("Samples per second", count(run.number("cost", "samples_per_second")), device),
    ]


def _collapse_tile(run: Run) -> Tile:
    collapsed, at = run.number("collapse", "collapsed"), run.number("collapse", "collapsed_at")
    below = run.number("collapse", "below_source")
    share = run.number("collapse", "below_source_share")
    detail = {None: "below source: unknown", 0.0: "never below source"}.get(below, f"below source: {percent(share, 0)}")
    if collapsed is None:
        return Tile("Collapse", "not measured", detail)
    if not collapsed:
        return Tile("Collapse", "none", detail, "warning" if below else "good")
    return Tile("Collapse", "yes" if at is None else f"at {count(at)}", detail, "bad")


def _difference(accuracy: float | None, source: float | None) -> str:
    return points(None if accuracy is None or source is None else accuracy - source)


def _costs(run: Run) -> list[tuple[str, str]]:
    rows: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("Forward passes per sample", "forwards_per_sample", lambda value: f"{value:.3g}"),
        ("Backward passes per sample", "backwards_per_sample", lambda value: f"{value:.3g}"),
        ("Together, in forward passes", "forward_equivalents_per_sample", lambda value: f"{value:.3g}"),
        ("Time", "seconds", lambda value: f"{value:,.1f} s"),
        ("Samples per second", "samples_per_second", count),
        ("Peak memory", "peak_memory_mb", lambda value: f"{value:,.0f} MB"),
    )
    values = [(label, run.number("cost", key), write) for label, key, write in rows]
    known = [(label, "unknown" if value is None else write(value)) for label, value, write in values]
    return [*known, ("Device", run.text("cost", "device"))]


def _sections(run: Run, sentence: str) -> list[Section]:
    drawn = figures(run)
    captions = dict(CAPTIONS)
    if len(domain_rows(run)) > MOST_DOMAIN_ROWS:
        captions["domains"] += MANY_DOMAINS
    unlabelled = np.isnan(run.column("window_accuracy")).all()
    if unlabelled:
        captions["accuracy"] = UNLABELLED + captions["accuracy"].partition(". ")[2]

    def cards(names: Iterable[str]) -> tuple[Card, ...]:
        return tuple(
            make_card(drawn[name], name, _alt(name, sentence), captions.get(name, ""))
            for name in names
            if name in drawn
        )

    return [
        Section(
            "accuracy",
            "Over the stream" if unlabelled else "Accuracy over the stream",
            cards(["accuracy", "estimates"]),
            "",
        ),
        Section("domains", "Per domain", cards(["domains"]), "The stream has no labels, so no accuracy per domain."),
        Section("stability", "Stability and collapse", cards(["classes", *PANELS, "adapter"]), "Nothing was recorded."),
        Section("calibration", "Calibration", cards(["calibration"]), "The stream has no labels to calibrate against."),
        Section("cost", "Cost", cards(COST_PANELS), "Nothing was recorded."),
    ]


def _alt(name: str, sentence: str) -> str:
    if name in PANELS:
        return f"Line chart against samples seen: {PANELS[name].title}."
    return f"{ALTS[name]} {sentence}" if name == "accuracy" else ALTS[name]
