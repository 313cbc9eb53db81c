"""The queue of jobs: order, places, and leaving it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from byoc.local.demand import GIB, Demand, of
from byoc.local.queue import PLACES_VARIABLE, Queue, Ticket, before
from tests.local.conftest import eventually

SMALL, MACHINE = Demand(2, 8 * GIB), Demand(8, 32 * GIB)


@dataclass
class Waiter:
    """A job's thread."""

    ticket: Ticket
    told: list[int] = field(default_factory=list)
    admitted: list[bool] = field(default_factory=list)

    def start(self) -> Waiter:
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.thread.start()
        return self

    def _wait(self) -> None:
        self.admitted.append(self.ticket.wait(self.told.append))

    def ended(self) -> bool:
        self.thread.join(5)
        assert not self.thread.is_alive()
        return self.admitted[0]


def test_jobs_run_one_after_the_other_in_the_order_in_which_they_came():
    queue = Queue(1)
    first, second, third = (Waiter(queue.enter(SMALL)) for _ in range(3))
    third.start()
    second.start()
    eventually(lambda: (second.told, third.told) == ([1], [2]))
    assert first.start().ended() is True
    assert first.told == []
    first.ticket.leave()
    assert second.ended() is True
    eventually(lambda: third.told == [2, 1])
    assert third.admitted == []
    second.ticket.leave()
    second.ticket.leave()
    assert third.ended() is True


def test_as_many_run_at_once_as_there_are_places():
    queue = Queue(2)
    first, second, third = (Waiter(queue.enter(SMALL)).start() for _ in range(3))
    assert first.ended()
    assert second.ended()
    eventually(lambda: third.told == [1])
    second.ticket.leave()
    assert third.ended() is True


def test_a_job_that_waits_can_leave_and_one_that_runs_is_not_concerned():
    queue = Queue(1)
    first, second, third = (Waiter(queue.enter(SMALL)).start() for _ in range(3))
    assert first.ended()
    assert first.ticket.withdraw() is False
    assert second.ticket.withdraw() is True
    assert second.ended() is False
    eventually(lambda: third.told[-1] == 1)
    first.ticket.leave()
    assert third.ended() is True
    assert second.ticket.withdraw() is False


def test_the_end_of_the_endpoint_lets_nobody_wait():
    queue = Queue(1)
    first, second, third = (Waiter(queue.enter(SMALL)).start() for _ in range(3))
    assert first.ended()
    queue.close()
    assert second.ended() is False
    assert third.ended() is False


@pytest.mark.parametrize(("value", "places"), [("3", 3), ("0", 1)])
def test_the_number_of_places_is_a_setting(monkeypatch, value, places):
    monkeypatch.setenv(PLACES_VARIABLE, value)
    queue = Queue()
    waiters = [Waiter(queue.enter(SMALL)).start() for _ in range(places + 1)]
    assert all(one.ended() for one in waiters[:-1])
    eventually(lambda: waiters[-1].told == [1])
    queue.close()


def test_jobs_run_beside_each_other_while_cores_and_memory_last():
    queue = Queue(capacity=MACHINE)
    demands = [Demand(4, 16 * GIB), SMALL, Demand(2, 12 * GIB), SMALL]
    first, second, third, fourth = (Waiter(queue.enter(one)).start() for one in demands)
    assert first.ended()
    assert second.ended()
    eventually(lambda: (third.told, fourth.told) == ([1], [1]))  # memory is short
    second.ticket.leave()
    assert third.ended()
    assert fourth.admitted == []
    first.ticket.leave()
    assert fourth.ended()


def test_a_small_job_does_not_overtake_a_large_one():
    queue = Queue(capacity=MACHINE)
    first, large, small = (Waiter(queue.enter(one)).start() for one in (SMALL, MACHINE, SMALL))
    assert first.ended()
    eventually(lambda: (large.told, small.told) == ([1], [2]))
    first.ticket.leave()
    assert large.ended()
    eventually(lambda: small.told == [2, 1])
    queue.close()


def test_one_job_has_the_machine_however_large_its_instances_and_the_gpus_to_itself():
    queue = Queue(capacity=MACHINE)
    huge, small = Waiter(queue.enter(Demand(96, 500 * GIB))), Waiter(queue.enter(SMALL))
    assert huge.start().ended()
    small.start()
    eventually(lambda: small.told == [1])
    huge.ticket.leave()
    assert small.ended()
    small.ticket.leave()
    gpu = Demand(1, GIB, gpu=True)
    one, other = (Waiter(queue.enter(gpu)).start() for _ in range(2))
    assert one.ended()
    eventually(lambda: other.told == [1])
    queue.close()


@pytest.mark.parametrize(
    ("request_", "demand"),
    [
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2}},
            Demand(4, 16 * GIB),
        ),
        (
            {"TransformResources": {"InstanceType": "ml.c5.2xlarge", "InstanceCount": 1}},
            Demand(8, 16 * GIB),
        ),
        (
            {
                "ProcessingResources": {
                    "ClusterConfig": {"InstanceType": "ml.r5.xlarge", "InstanceCount": 1}
                }
            },
            Demand(4, 32 * GIB),
        ),
        (
            {
                "ResourceConfig": {
                    "InstanceGroups": [
                        {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
                        {"InstanceType": "ml.t3.medium", "InstanceCount": 1},
                    ]
                }
            },
            Demand(6, 24 * GIB, gpu=True),
        ),
        ({}, Demand()),
    ],
)
def test_a_request_says_what_its_instances_have(request_, demand):
    assert of(request_) == demand


def test_words_for_one_job_and_for_several():
    assert before(1) == "Waiting on this machine: 1 job is before this one"
    assert before(2) == "Waiting on this machine: 2 jobs are before this one"
