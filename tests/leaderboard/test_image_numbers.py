"""Which samples show the same image."""

import numpy as np

from tta.leaderboard.image_numbers import Columns, number_images


def block(domains: list[str], index: list[int], label: list[int]) -> Columns:
    return {"domain": np.array(domains), "index": np.array(index), "label": np.array(label)}


def test_corruptions_of_one_test_set_share_images_in_all_blocks() -> None:
    first = block(["fog", "fog", "snow", "snow"], [0, 1, 1, 2], [7, 8, 8, 9])
    second = block(["snow", "fog", "blur"], [2, 0, 1], [9, 7, -1])
    numbers = number_images({("net", "a", 0): first, ("vit", "b", 1): second})
    assert numbers["net", "a", 0].tolist() == [0, 1, 1, 2]
    assert numbers["vit", "b", 1].tolist() == [2, 0, 1]


def test_folders_of_their_own_images_share_none() -> None:
    first = block(["photo", "photo", "sketch", "sketch"], [0, 1, 0, 1], [0, 1, 0, 2])
    second = block(["sketch", "photo"], [0, 0], [0, 0])
    numbers = number_images({("net", "a", 0): first, ("net", "a", 1): second})
    photo, _, sketch, _ = numbers["net", "a", 0].tolist()
    assert len(set(numbers["net", "a", 0].tolist())) == 4
    assert numbers["net", "a", 1].tolist() == [sketch, photo]


def test_streams_of_two_data_sets_share_none() -> None:
    digits, cars = block(["fog"] * 3, [0, 1, 2], [0, 1, 2]), block(["fog"] * 3, [0, 1, 2], [2, 1, 0])
    numbers = number_images({("net", "digits", 0): digits, ("net", "cars", 0): cars})
    assert not set(numbers["net", "digits", 0]) & set(numbers["net", "cars", 0])


def test_no_block_and_no_sample() -> None:
    assert number_images({}) == {}
    assert number_images({("net", "a", 0): block([], [], [])})["net", "a", 0].tolist() == []
