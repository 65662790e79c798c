import hashlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from sklearn.feature_selection import chi2

from datamodules.labels import (
    Dirichlet,
    ImbalanceRatio,
    LabelSchedule,
    LongTailed,
    Prior,
    PriorChange,
    Shuffled,
    Sorted,
)
from datamodules.priors import check_prior, long_tailed_counts, long_tailed_prior, prior_counts
from tta.errors import InputError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.int64))
COVERED = LABELS.map(lambda labels: np.concatenate([np.arange(6), labels]))
SEEDS = st.integers(0, 2**31)
BALANCED = np.repeat(np.arange(10), 50)
EVERY = [
    Shuffled(),
    Sorted(),
    Dirichlet(0.1),
    LongTailed(5),
    Prior([0.1] * 10),
    PriorChange("forward:20", "backward:20"),
]


def call(schedule, labels=BALANCED, num_classes=10, seed=0):
    return schedule(labels, num_classes, np.random.default_rng(seed))


@settings(max_examples=60)
@given(
    st.sampled_from([Shuffled(), Sorted(), *map(Dirichlet, (1e-6, 0.1, 1.0, 1e6)), Dirichlet(0.5, 3)]), LABELS, SEEDS
)
def test_permutations_are_permutations(schedule, labels, seed):
    positions = call(schedule, labels, 6, seed)
    assert positions.dtype == np.int64
    assert sorted(positions.tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: type(schedule).__name__)
def test_the_seed_alone_decides(schedule):
    assert call(schedule).tolist() == call(schedule).tolist()
    assert call(schedule).tolist() != call(schedule, seed=1).tolist()


@given(LABELS, SEEDS)
def test_sorted_ascends(labels, seed):
    assert np.all(np.diff(labels[call(Sorted(), labels, 6, seed)]) >= 0)


def spans(labels):
    return [(np.flatnonzero(labels == label)[0], np.flatnonzero(labels == label)[-1]) for label in np.unique(labels)]


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_a_tiny_gamma_puts_every_class_into_one_slot(seed):
    shown = BALANCED[call(Dirichlet(1e-6), seed=seed)]
    ordered = sorted(spans(shown))
    # Classes of one slot are mixed with each other; slots follow each other, with whole classes only.
    ends = np.maximum.accumulate([last for _, last in ordered])
    for (first, _), end in zip(ordered[1:], ends[:-1], strict=True):
        if first > end:
            assert first == end + 1
            assert first % 50 == 0


def label_changes(gamma, seed, num_slots=None):
    return int((np.diff(BALANCED[call(Dirichlet(gamma, num_slots), seed=seed)]) != 0).sum())


def test_among_many_slots_a_tiny_gamma_sorts():
    # Two of ten classes rarely share one of 200 slots: nine changes.
    assert np.median([label_changes(1e-6, seed, 200) for seed in range(20)]) == 9


@settings(max_examples=10, derandomize=True)
@given(SEEDS)
def test_a_large_gamma_looks_independent(seed):
    shown = BALANCED[call(Dirichlet(1e6), seed=seed)]
    table = np.stack([np.bincount(slot, minlength=10) for slot in shown.reshape(10, 50)])
    # The 0.99 quantile of chi-square with 81 degrees of freedom; an even deal stays far below.
    assert chi2(table, np.arange(10))[0].sum() < 113.5


def test_a_smaller_gamma_changes_the_label_less_often():
    changes = [np.mean([label_changes(gamma, seed) for seed in range(5)]) for gamma in (1e-3, 0.1, 1.0, 100.0)]
    assert changes == sorted(changes)
    assert changes[-1] > 400


@given(COVERED, st.floats(1, 20), st.sampled_from(["forward", "backward"]), SEEDS)
def test_long_tailed_counts_are_exact(labels, ratio, direction, seed):
    positions = call(LongTailed(ratio, direction), labels, 6, seed)
    expected = long_tailed_counts(6, int(np.bincount(labels).min()), ratio)
    assert len(set(positions.tolist())) == len(positions)
    shown = np.bincount(labels[positions], minlength=6)
    assert shown.tolist() == (expected if direction == "forward" else expected[::-1]).tolist()


@example(np.array([0, 1, 2, 3, 4, 5, 0]), [0, 2, 9, 9, 6, 2], 0)
@given(COVERED, st.lists(st.integers(0, 9), min_size=6, max_size=6).filter(any), SEEDS)
def test_a_prior_is_met_by_the_largest_subset(labels, weights, seed):
    prior = check_prior(np.array(weights) / sum(weights), 6)
    positions = call(Prior(prior.tolist()), labels, 6, seed)
    assert len(set(positions.tolist())) == len(positions) > 0
    shown, sizes = np.bincount(labels[positions], minlength=6), np.bincount(labels, minlength=6)
    assert np.all(np.abs(shown - prior * len(positions)) < 1 + 1e-9)
    larger = range(len(positions) + 1, len(labels) + 1)
    assert not any((prior_counts(prior, total) <= sizes).all() for total in larger)


def test_a_uniform_prior_on_balanced_data_keeps_everything():
    assert sorted(call(Prior([0.1] * 10)).tolist()) == list(range(500))


@settings(max_examples=40)
@given(COVERED, st.sampled_from(["ramp", "switch"]), st.integers(1, 30), SEEDS)
def test_a_changing_prior_is_met_in_every_block(labels, kind, block, seed):
    positions = call(PriorChange("forward:20", "backward:20", kind, block), labels, 6, seed)
    assert len(positions) == len(labels)
    start, end = long_tailed_prior(6, 20, "forward"), long_tailed_prior(6, 20, "backward")
    for first in range(0, len(labels), block):
        shown = labels[positions[first : first + block]]
        passed = (first + len(shown) / 2) / len(labels)
        weight = passed if kind == "ramp" else passed >= 0.5
        prior = (1 - weight) * start + weight * end
        assert np.all(np.abs(np.bincount(shown, minlength=6) - prior * len(shown)) < 1 + 1e-9)


@given(COVERED, SEEDS)
def test_an_image_repeats_only_after_all_of_its_class(labels, seed):
    positions = call(PriorChange([0.9, 0.1, 0, 0, 0, 0], "uniform", block=7), labels, 6, seed)
    for label in range(6):
        size = (labels == label).sum()
        shown = positions[labels[positions] == label]
        for first in range(0, len(shown), size):
            one_pass = shown[first : first + size]
            assert len(set(one_pass.tolist())) == len(one_pass)


# SHA-256 of the index files that SAR's authors published, as little-endian int64.
PUBLISHED = {
    (1, 2022): "47a58ef1a05e1e0949d63a27c614de994865e2b974672d12cc8508aaad2f628d",
    (1, 2023): "47a58ef1a05e1e0949d63a27c614de994865e2b974672d12cc8508aaad2f628d",
    (1000, 2022): "0c713906ee3658c08a255fe6c03741e1e09cbba0624c3ca8683d2c4bdce7340a",
    (1000, 2023): "7bd5364eed2936289d690efc56d9d71c36051ebb6359334c634dd36670969e73",
    (500000, 2022): "659082b354831f34db5ed0b05b7778cc05aa6a8725d99d26d1de105ecafe6060",
    (500000, 2023): "4c53bb0caa8252f855f8dba76fbc0dd812ff484789e6c418c774bb4d654bda4b",
}


@pytest.mark.parametrize(("ratio", "seed"), sorted(PUBLISHED))
def test_label_shift_equals_the_published_index_files(ratio, seed):
    positions = call(ImbalanceRatio(ratio, seed), np.repeat(np.arange(1000), 50), 1000)
    assert hashlib.sha256(positions.astype("<i8").tobytes()).hexdigest() == PUBLISHED[ratio, seed]


def test_label_shift_draws_as_one_choice_after_the_other():
    labels = np.repeat(np.arange(10), 50)
    positions = call(ImbalanceRatio(10, block=20), labels)
    rng = np.random.RandomState(2022)
    order = labels[positions].reshape(10, 20)
    dominant = [np.bincount(block, minlength=10).argmax() for block in order]
    assert sorted(dominant) == list(range(10))
    for block, label in zip(order, dominant, strict=True):
        prior = np.where(np.arange(10) == label, 10, 1) / 19
        assert block.tolist() == [rng.choice(10, 1, p=prior).item() for _ in range(20)]


@given(COVERED, st.floats(1, 1e6), st.integers(0, 99), st.integers(1, 3), st.integers(1, 9))
def test_label_shift_works_on_any_data(labels, ratio, seed, blocks_per_class, block):
    schedule = ImbalanceRatio(ratio, seed, blocks_per_class, block)
    positions = call(schedule, labels, 6)
    assert len(positions) == 6 * blocks_per_class * block
    assert 0 <= positions.min() <= positions.max() < len(labels)
    assert positions.tolist() == call(schedule, labels, 6, seed=1).tolist()


def test_no_schedule_touches_the_global_state():
    before = np.random.get_state()[1].tolist()
    for schedule in [*EVERY, ImbalanceRatio(10)]:
        call(schedule)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize(
    ("build", "message"),
    [
        *((lambda gamma=gamma: Dirichlet(gamma), "gamma: ") for gamma in (0.0, -1.0, 1e-9, float("nan"), float("inf"))),
        (lambda: Dirichlet(num_slots=0), "num_slots: 0"),
        (lambda: LongTailed(0.5), "ratio: 0.5"),
        (lambda: LongTailed(5, "down"), "direction: 'down' is unknown"),
        (lambda: Prior([0.5, 0.6]), "prior: the numbers sum to 1.1"),
        (lambda: PriorChange("uniform", [0.5, 0.6]), "end: the numbers sum to 1.1"),
        (lambda: PriorChange("forwards:5", "uniform"), "start: 'forwards:5' is no prior"),
        (lambda: PriorChange("uniform", "uniform", "jump"), "kind: 'jump' is unknown"),
        (lambda: PriorChange("uniform", "uniform", block=0), "block: 0"),
        (lambda: ImbalanceRatio(0), "ratio: 0"),
        (lambda: ImbalanceRatio(5, seed=-1), "seed: -1"),
        (lambda: ImbalanceRatio(5, blocks_per_class=0), "blocks_per_class: 0"),
        (lambda: ImbalanceRatio(5, block=0), "block: 0"),
        (lambda: call(Prior([0.5, 0.5])), "prior: 2 numbers do not fit 10 classes"),
        (lambda: call(PriorChange("uniform", [1.0])), "end: 1 numbers do not fit 10 classes"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "schedule", [LongTailed(2), Prior([0.5, 0.5]), PriorChange("uniform", "uniform"), ImbalanceRatio(2)]
)
def test_a_class_without_images_is_refused_where_it_is_needed(schedule):
    with pytest.raises(InputError, match="labels: class 1 has no image"):
        call(schedule, np.zeros(5, dtype=np.int64), 2)


def test_a_class_without_images_may_have_no_share():
    assert len(call(Prior([1.0, 0.0]), np.zeros(5, dtype=np.int64), 2)) == 5


@pytest.mark.parametrize("schedule", [*EVERY, ImbalanceRatio(1000), PriorChange([0.5, 0.5], "uniform")], ids=repr)
def test_schedules_can_be_built_from_a_configuration(schedule):
    parser = ArgumentParser()
    parser.add_argument("--labels", type=LabelSchedule)
    config = {"class_path": f"datamodules.labels.{type(schedule).__name__}", "init_args": dict(vars(schedule))}
    assert parser.instantiate_classes(parser.parse_object({"labels": config})).labels == schedule
