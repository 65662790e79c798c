"""What the picture and the summary of a stream count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tta.report.shares import category_color, counted, even_edges, run_edges, shares
from tta.report.stream import distinct_per_batch, strip_positions


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=300), st.integers(1, 20))
def test_distinct_classes_per_batch(labels: list[int], batch: int) -> None:
    starts = np.append(np.arange(0, len(labels), batch), len(labels))
    groups = [labels[first : first + batch] for first in range(0, len(labels), batch)]
    expected = np.mean([len(set(group) - {-1}) for group in groups])
    assert distinct_per_batch(np.array(labels), starts) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=400), st.integers(2, 30))
def test_bins_count_every_known_sample_once(values: list[int], most: int) -> None:
    array = np.array(values)
    for edges in (even_edges(len(array)), run_edges(array, most)):
        assert edges[0] == 0
        assert edges[-1] == len(array)
        assert (np.diff(edges) > 0).all()
        counts = counted(array, edges, 5)
        np.testing.assert_array_equal(counts.sum(axis=1), [np.count_nonzero(array == k) for k in range(5)])
        share = shares(array, edges, 5)
        known = counts.sum(axis=0) > 0
        np.testing.assert_allclose(share[:, known].sum(axis=0), 1)
        assert np.isnan(share[:, ~known]).all()


@given(st.integers(1, 10**7))
def test_strip_positions_are_inside_and_distinct(samples: int) -> None:
    positions = strip_positions(samples)
    assert len(positions) == min(11, samples)
    assert (np.diff(positions) > 0).all()
    assert positions[0] >= 0
    assert positions[-1] < samples


def test_colours_are_distinct() -> None:
    assert len({category_color(number) for number in range(21)}) == 21
