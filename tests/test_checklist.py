from __future__ import annotations

from tests.checklist import covered

#: Items 1 to 55 of the checklist are those of training.
TRAINING = range(1, 56)


def test_every_item_of_training_has_a_test():
    tests = covered()
    assert [number for number in TRAINING if number not in tests] == []
    assert "test_checklist.py" not in str(tests)
