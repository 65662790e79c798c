"""What a run amounts to, in one plain sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tta.report.run import Run

Tone = Literal["good", "neutral", "warning", "bad"]
SMALLEST_GAIN = 0.0005
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Verdict:
    """A sentence about a run, and how good the news is.

    Attributes:
        sentence: What happened, with the numbers.
        tone: How good it is.
        word: The news in a word or two.
    """

    sentence: str
    tone: Tone
    word: str


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage, `unknown` for `None`."""
    return "unknown" if share is None else f"{100 * share:.{digits}f} %"


def count(number: float | None) -> str:
    """A whole number with thousands separators, `unknown` for `None`."""
    return "unknown" if number is None else f"{number:,.0f}"


def points(difference: float | None) -> str:
    """A difference of accuracies as signed percentage points, `unknown` for `None`."""
    if difference is None:
        return "unknown"
    text = f"{100 * abs(difference):.1f}"
    sign = "" if text == "0.0" else "+" if difference > 0 else MINUS
    return sign + text


def paired_accuracy(run: Run) -> float | None:
    """Adapted accuracy in [0, 1] on the samples that the source model also saw, else on all of them."""
    paired = run.number("accuracy_paired")
    return run.number("accuracy") if paired is None else paired


def gain(run: Run) -> float | None:
    """Adapted minus frozen source accuracy, in [-1, 1], on the samples both saw; `None` where either is unknown."""
    adapted, source = paired_accuracy(run), run.number("source_accuracy")
    return None if adapted is None or source is None else adapted - source


def write_verdict(run: Run) -> Verdict:
    """Judge a run: collapse first, then the comparison with the frozen source model, then what is known at all."""
    adapter = run.text("adapter")
    if run.number("collapse", "collapsed"):
        return Verdict(f"{adapter} {_collapse(run)}: {_reading(run)}{_resets(run)}.", "bad", "Collapsed")
    difference = gain(run)
    ending = f"{_resets(run)}; {_no_collapse(run)}."
    if run.number("collapse", "below_source"):
        gained = difference is not None and difference >= SMALLEST_GAIN
        sentence = f"{adapter} {_below(run, difference)}{ending}"
        return Verdict(sentence, "warning", "Mixed") if gained else Verdict(sentence, "bad", "Harmed")
    if difference is None:
        return Verdict(f"{adapter} {_without_comparison(run)}{ending}", "neutral", "No comparison")
    return Verdict(f"{adapter} {_change(difference)} {_both(run)}{ending}", *_tone(difference))


def _tone(difference: float) -> tuple[Tone, str]:
    if abs(difference) < SMALLEST_GAIN:
        return "neutral", "No difference"
    return ("good", "Helped") if difference > 0 else ("warning", "Did not help")


def _change(difference: float) -> str:
    if abs(difference) < SMALLEST_GAIN:
        return "matched the frozen source model"
    verb, relation = ("gained", "over") if difference > 0 else ("lost", "against")
    return f"{verb} {100 * abs(difference):.1f} points {relation} the frozen source model"


def _both(run: Run) -> str:
    return f"({percent(paired_accuracy(run))} against {percent(run.number('source_accuracy'))})"


def _collapse(run: Run) -> str:
    at, share = run.number("collapse", "collapsed_at"), run.number("collapse", "collapsed_share")
    text = "collapsed" if at is None else f"collapsed after {count(at)} samples"
    if run.column("collapsed")[-1] == 0:
        text += " and recovered"
    return text if share is None else f"{text} ({percent(share, 0)} of the stream)"


def _reading(run: Run) -> str:
    if gain(run) is not None:
        source = percent(run.number("source_accuracy"))
        return f"{percent(paired_accuracy(run))} accuracy against {source} for the frozen source model"
    if run.number("accuracy") is not None:
        return f"{percent(run.number('accuracy'))} accuracy"
    return "its predictions concentrate on few classes while the frozen source model's do not"


def _below(run: Run, difference: float | None) -> str:
    at, share = run.number("collapse", "below_source_at"), run.number("collapse", "below_source_share")
    first = "" if at is None else f", first at sample {count(at)}"
    part = "part" if share is None else percent(share, 0)
    if difference is not None and difference >= SMALLEST_GAIN:
        return f"{_change(difference)} {_both(run)} but was below it over {part} of the stream{first}"
    both = "" if difference is None else f" {_both(run)}"
    if run.column("below_source")[-1] == 0:
        return f"fell below the frozen source model over {part} of the stream{first}{both}"
    since = "" if at is None else f" from sample {count(at)} on"
    return f"fell below the frozen source model{since}{both}"


def _without_comparison(run: Run) -> str:
    samples = count(run.number("samples"))
    if run.number("accuracy") is None:
        return f"saw {samples} samples without labels, so its accuracy is unknown"
    accuracy = percent(run.number("accuracy"))
    return f"reached {accuracy} on {samples} samples, with no frozen source model to compare with"


def _no_collapse(run: Run) -> str:
    return "collapse was not measured" if run.number("collapse", "collapsed") is None else "no collapse"


def _resets(run: Run) -> str:
    resets = run.number("resets")
    if not resets:
        return ""
    return f", with {count(resets)} reset{'s' if resets > 1 else ''}"
