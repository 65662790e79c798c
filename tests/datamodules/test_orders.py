import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datamodules.covariate import Drift, Gradual, Recurring, Segment, Sequential
from datamodules.labels import Dirichlet, LongTailed, PriorChange, Shuffled, Sorted
from datamodules.orders import make_plan, shard
from tta.errors import InputError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=30).map(lambda values: np.array(values, dtype=np.int64))
SEEDS = st.integers(0, 2**31)
PERMUTATIONS = st.sampled_from([Shuffled(), Sorted(), Dirichlet(0.1), Dirichlet(1e6)])
BALANCED = np.repeat(np.arange(10), 20)
FOUR = Sequential()(["a", "b", "c", "d"])


def plan_of(segments=FOUR, labels=BALANCED, schedule=None, order="continual", seed=0, batch_size=8, boundaries="known"):
    labels_of = labels.__getitem__ if isinstance(labels, dict) else lambda _: labels
    return make_plan(segments, labels_of, 10, schedule or Shuffled(), order, seed, batch_size, boundaries)


def samples(plan):
    return list(zip(plan.index.tolist(), plan.condition.tolist(), plan.domain.tolist(), strict=True))


def batches(plan):
    return [plan.batch(number) for number in range(len(plan))]


@settings(max_examples=60)
@given(PERMUTATIONS, st.lists(LABELS, min_size=1, max_size=4), st.sampled_from(["continual", "mixed"]), SEEDS)
def test_a_plan_shows_every_image_of_every_domain_once(schedule, data, order, seed):
    names = [f"domain{number}" for number in range(len(data))]
    plan = plan_of(Sequential()(names), dict(zip(names, data, strict=True)), schedule, order, seed, 1)
    expected = [(index, domain, domain) for domain, labels in enumerate(data) for index in range(len(labels))]
    assert sorted(samples(plan)) == sorted(expected)
    assert plan.conditions == plan.domains == names
    assert plan.label.tolist() == [data[domain][index] for index, _, domain in samples(plan)]
    again = plan_of(Sequential()(names), dict(zip(names, data, strict=True)), schedule, order, seed, 1)
    assert samples(plan) == samples(again)
    assert plan.starts.tolist() == again.starts.tolist()


@pytest.mark.parametrize("order", ["continual", "mixed"])
@pytest.mark.parametrize(
    "schedule", [Shuffled(), Sorted(), Dirichlet(), LongTailed(4), PriorChange("uniform", "forward:9")]
)
def test_the_seed_matters_and_segments_differ(order, schedule):
    plan = plan_of(schedule=schedule, order=order)
    assert samples(plan) != samples(plan_of(schedule=schedule, order=order, seed=1))
    assert plan.index[plan.domain == 0].tolist() != plan.index[plan.domain == 1].tolist()


@given(PERMUTATIONS, SEEDS)
def test_a_segment_does_not_depend_on_what_follows(schedule, seed):
    short, long = plan_of(FOUR[:1], schedule=schedule, seed=seed), plan_of(schedule=schedule, seed=seed)
    assert short.index.tolist() == long.index[: len(BALANCED)].tolist()


def test_recurring_domains_keep_their_number_and_are_shuffled_anew():
    plan = plan_of(Recurring(3)(["a", "b"]))
    assert plan.domains == ["a", "b"]
    assert plan.domain[:: len(BALANCED)].tolist() == [0, 1] * 3
    assert plan.segment[:: len(BALANCED)].tolist() == list(range(6))
    rounds = plan.index.reshape(6, -1)
    assert rounds[0].tolist() != rounds[2].tolist()


def test_gradual_segments_share_a_domain():
    plan = plan_of(Gradual((1, 2, 1))(["fog", "frost"]))
    assert plan.domains == ["fog", "frost"]
    assert plan.conditions == ["fog:1", "fog:2", "frost:1", "frost:2"]
    assert plan.condition[:: len(BALANCED)].tolist() == [0, 1, 0, 2, 3, 2]


@given(st.integers(1, 9), LABELS)
def test_conditions_are_spread_evenly(steps, labels):
    segments = Drift(steps)(["fog:4", "frost:2"])
    plan = plan_of(segments, labels, batch_size=1)
    size = len(labels)
    shown = [plan.conditions[number] for number in plan.condition]
    assert shown == [segments[0].conditions[position * (steps + 1) // size] for position in range(size)]
    mixed = plan_of(segments, labels, order="mixed", batch_size=1)
    assert np.bincount(mixed.condition, minlength=steps + 1).tolist() == (
        np.bincount(plan.condition, minlength=steps + 1).tolist()
    )


def test_mixed_conditions_have_nothing_to_do_with_the_images():
    plan = plan_of(Drift(1)(["fog:4", "frost:2"]), order="mixed")
    labels = [plan.label[plan.condition == number] for number in range(2)]
    assert all(30 < (shown < 5).sum() < 70 for shown in labels)


def test_mixed_has_many_domains_in_a_batch_and_can_be_correlated():
    independent, correlated = (plan_of(order="mixed", schedule=each) for each in (Shuffled(), Dirichlet(1e-3)))
    for plan in (independent, correlated):
        assert np.mean([len({domain for _, _, domain in batch}) for batch in batches(plan)]) > 3
        assert set(plan.segment.tolist()) == {0}
    changes = [int((np.diff(plan.label) != 0).sum()) for plan in (independent, correlated)]
    assert changes[1] < changes[0] * 0.8


@given(LABELS, st.integers(1, 4), st.integers(1, 7), st.sampled_from(["known", "hidden"]))
def test_batches_partition_the_samples(labels, num_domains, batch_size, boundaries):
    assume(batch_size <= len(labels))
    plan = plan_of(FOUR[:num_domains], labels, batch_size=batch_size, boundaries=boundaries)
    cut = batches(plan)
    assert [sample for batch in cut for sample in batch] == samples(plan)
    assert all(1 <= len(batch) <= batch_size + 1 for batch in cut)
    if batch_size > 1:
        assert all(len(batch) > 1 for batch in cut)

    def count(size):
        whole, rest = divmod(size, batch_size)
        return max(whole + (rest > (batch_size > 1)), 1)

    if boundaries == "known":
        assert all(len({domain for _, _, domain in batch}) == 1 for batch in cut)
        assert len(cut) == num_domains * count(len(labels))
    else:
        assert len(cut) == count(num_domains * len(labels))


def test_known_boundaries_cut_between_segments_of_one_domain():
    plan = plan_of(Gradual((1, 2))(["fog"]), np.zeros(10, dtype=np.int64), batch_size=8)
    assert np.diff(plan.starts).tolist() == [8, 2, 8, 2]
    hidden = plan_of(Gradual((1, 2))(["fog"]), np.zeros(10, dtype=np.int64), batch_size=8, boundaries="hidden")
    assert np.diff(hidden.starts).tolist() == [8, 8, 4]


def test_a_lone_last_sample_joins_the_batch_before():
    labels = np.zeros(33, dtype=np.int64)
    assert np.diff(plan_of(FOUR[:2], labels, batch_size=16).starts).tolist() == [16, 17, 16, 17]
    assert np.diff(plan_of(FOUR[:2], labels, batch_size=1).starts).tolist() == [1] * 66


def test_batches_are_plain_numbers():
    assert {type(number) for sample in plan_of().batch(0) for number in sample} == {int}


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 5))
def test_shards_partition_with_equal_lengths(size, batch_size, world_size):
    assume(batch_size <= size)
    plan = plan_of(FOUR[:1], np.zeros(size, dtype=np.int64), batch_size=batch_size)
    if size < world_size and len(plan) < world_size:
        with pytest.raises(InputError, match="fewer devices"):
            shard(plan, 0, world_size)
        return
    shards = [shard(plan, rank, world_size) for rank in range(world_size)]
    assert len({len(part) for part in shards}) == 1
    assert sorted(position for part in shards for position in part.positions.tolist()) == list(range(size))
    everything = samples(plan)
    for part in shards:
        cut = batches(part)
        assert all(1 <= len(batch) <= batch_size + 2 for batch in cut)
        assert [sample for batch in cut for sample in batch] == [everything[position] for position in part.positions]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_full_rounds_deal_every_world_th_batch(world_size):
    plan = plan_of(batch_size=20)
    for rank in range(world_size):
        part = shard(plan, rank, world_size)
        for number in range(len(plan) // world_size):
            expected = plan.batch(rank + number * world_size)
            assert part.batch(number)[: len(expected)] == expected


def test_left_over_samples_are_dealt_evenly():
    plan = plan_of(FOUR[:1], np.zeros(10, dtype=np.int64), batch_size=4)
    assert [np.diff(shard(plan, rank, 2).starts).tolist() for rank in range(2)] == [[4, 1], [4, 1]]
    plan = plan_of(FOUR[:1], np.zeros(14, dtype=np.int64), batch_size=4)
    assert [np.diff(shard(plan, rank, 3).starts).tolist() for rank in range(3)] == [[5], [5], [4]]


NONE = np.zeros(0, dtype=np.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": "mixd"}, r"order: 'mixd' is unknown.*Did you mean 'mixed'\?"),
        ({"boundaries": "unknown"}, "boundaries: 'unknown' is unknown; choose one of hidden, known"),
        ({"batch_size": 0}, "batch_size: 0 is too small"),
        ({"seed": -1}, "seed: -1 is too small"),
        ({"segments": []}, "stream: there is no image in it"),
        ({"segments": FOUR[:1], "labels": NONE}, "stream: there is no image in domain 'a'"),
        ({"labels": BALANCED[:10], "batch_size": 64}, "batch_size: 64 is more than the 40 images of the stream"),
        (
            {"segments": [Segment("x", ("a", "b"))], "labels": {"a": BALANCED, "b": BALANCED[:5]}},
            "domains: 'x' has 200 images under 'a', 5 under 'b'",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        plan_of(**arguments)
    assert "\n" not in str(caught.value)


def test_a_sample_costs_a_few_bytes():
    plan = plan_of()
    columns = (plan.index, plan.label, plan.condition, plan.domain, plan.segment)
    assert sum(column.nbytes for column in columns) == 28 * len(plan.index)
