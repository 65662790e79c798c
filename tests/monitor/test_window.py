import torch
from hypothesis import given
from hypothesis import strategies as st

from tta.monitor import SampleWindow


@given(st.integers(1, 12), st.lists(st.integers(1, 30), max_size=8))
def test_holds_the_last_samples_like_a_plain_list(size, batches):
    window = SampleWindow(size, 2)
    everything: list[int] = []
    for batch in batches:
        number = torch.arange(len(everything), len(everything) + batch)
        window.append(torch.stack([number, -number], 1).float(), number, 2 * number)
        everything.extend(number.tolist())
        probabilities, labels, source = window.rows()
        assert sorted(labels.tolist()) == everything[-size:]
        assert torch.equal(probabilities, torch.stack([labels, -labels], 1).float())
        assert torch.equal(source, 2 * labels)
    assert len(window.rows()[1]) == min(len(everything), size)


def test_state_dict_carries_it_and_its_size_is_fixed():
    window = SampleWindow(5, 3)
    size = sum(b.numel() for b in window.buffers())
    for number in range(4):
        window.append(torch.rand(3, 3), torch.full((3,), number), torch.full((3,), -1))
    assert sum(b.numel() for b in window.buffers()) == size
    other = SampleWindow(5, 3)
    other.load_state_dict(window.state_dict())
    for ring in (window, other):
        ring.append(torch.full((2, 3), 0.5), torch.tensor([7, 8]), torch.tensor([1, 2]))
    assert all(torch.equal(a, b) for a, b in zip(window.rows(), other.rows(), strict=True))
