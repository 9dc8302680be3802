"""What loads while the collector rests is never looked at again."""

import gc

import pytest

from model_kit.collector import making_what_stays


@pytest.fixture(autouse=True)
def thawed() -> object:
    gc.unfreeze()
    yield
    gc.unfreeze()


class Node:
    """An object in a cycle with itself."""

    def __init__(self) -> None:
        self.itself = self


def is_collected(kept: object) -> bool:
    return any(each is kept for each in gc.get_objects())


def test_what_is_made_stays_and_garbage_does_not() -> None:
    with making_what_stays():
        assert not gc.isenabled()
        kept = Node()
        Node()
    assert gc.isenabled()
    assert not is_collected(kept)
    # By type: what other tests have left may be a proxy of something that has gone.
    assert not [each for each in gc.get_objects() if type(each) is Node]
    later = Node()
    assert is_collected(later)


def test_a_load_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ValueError, match="torn"), making_what_stays():
        raise ValueError("torn")
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
