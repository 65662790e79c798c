"""Seeds of random draws that depend on where in a stream they are made."""

import numpy as np


def derived_seed(*numbers: int) -> int:
    """A seed made of several numbers, such as that of a run and a count of draws; near ones give unrelated seeds.

    Args:
        *numbers: At least 0 each.

    Returns:
        A number in ``[0, 2**32)``.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
