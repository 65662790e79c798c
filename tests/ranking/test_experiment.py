import numpy as np
import pytest

from tests.ranking.simulated import block
from tta.errors import InputError
from tta.ranking import Block, Experiment, rank

NAN = np.nan
RIGHT = [[1, 0], [0, 1]]


def test_tasks_in_the_order_of_their_first_blocks():
    blocks = (block(RIGHT, "b"), block(RIGHT, "a"), block(RIGHT, "b", seed=1))
    assert Experiment(("x", "y"), blocks, {}).tasks == ("b", "a")


@pytest.mark.parametrize(
    ("systems", "blocks", "message"),
    [
        ((), (block(RIGHT),), "0 systems and 1 blocks"),
        (("x", "y"), (), "2 systems and 0 blocks"),
        (("x", "x"), (block(RIGHT),), "'x' is named 2 times"),
        (("x", "y"), (block(RIGHT), block(RIGHT)), "seed 0 is given 2 times"),
        (("x",), (block(RIGHT, "m / s", seed=3),), "'m / s' seed 3: correct has 2 rows; needs 1"),
        (("x", "y"), (block(RIGHT, ece=[0.1, 0.2]),), r"'ece' is not in higher_is_better; known: \[\]"),
        (("x", "y"), (block([[1, 0], [NAN, NAN]]),), "system 'y': no sample of it is known"),
        (("x", "y"), (block([[], []]),), "system 'x': no sample of it is known"),
    ],
)
def test_names_what_cannot_be_ranked(systems, blocks, message):
    with pytest.raises(InputError, match=message):
        Experiment(systems, blocks, {})


@pytest.mark.parametrize(
    ("correct", "images", "metrics", "message"),
    [
        (np.ones(3), np.arange(3), {}, r"correct has shape \(3,\)"),
        (np.ones((2, 3)), np.arange(2), {}, r"images has shape \(2,\); correct asks for \(3,\)"),
        (np.ones((2, 3)), np.arange(3), {"ece": np.ones(3)}, r"metric ece has shape \(3,\)"),
        (np.full((2, 3), 0.5), np.arange(3), {}, "correct holds 0.5; allowed are 1"),
    ],
)
def test_names_the_shape_or_value_that_does_not_fit(correct, images, metrics, message):
    with pytest.raises(InputError, match=f"block 'task' seed 7: .*{message}"):
        Block("task", 7, correct, images, metrics)


def test_needs_a_resample():
    with pytest.raises(InputError, match="resamples=0"):
        rank(Experiment(("x", "y"), (block(RIGHT),), {}), resamples=0)
