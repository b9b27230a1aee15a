"""How much memory there is, and which of several messages gets it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tabserve.inference import memory
from tabserve.inference.memory import FEW_WAITING, MOST_WAITING, PATIENCE_SECONDS, WAIT_SECONDS, Budget, Share
from tabserve.inference.metrics import Metrics

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
TENTH = 2 * memory.FREE_BYTES
ALL = 10 * TENTH


class Clock:
    """A clock whose seconds a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Message(Share):
    """A message that asks for memory, and records what it hears."""

    def __init__(self, budget: Budget, size: int) -> None:
        super().__init__(budget)
        self.heard = ""
        self.ask(size)

    def granted(self) -> None:
        self.heard += "granted"

    def lost(self) -> None:
        self.heard += "lost"


class Blind(Message):
    """A message whose progress can't be seen."""

    blind = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    return Budget(ALL, Metrics(), clock)


async def test_messages_that_fit_are_granted_at_once_and_others_wait(budget: Budget) -> None:
    messages = [Message(budget, 4 * TENTH) for _ in range(3)]
    assert [message.here for message in messages] == [True, True, False]
    messages[0].give_back()
    assert messages[2].here
    assert [message.heard for message in messages] == ["", "", "granted"]


async def test_one_that_alone_is_too_large_is_granted(budget: Budget) -> None:
    large = Message(budget, 3 * ALL)
    assert large.here
    assert not Message(budget, 1).here


async def test_a_whole_message_takes_its_own_size(budget: Budget) -> None:
    first, second, third = (Message(budget, size) for size in (ALL, TENTH, 9 * TENTH))
    first.work(TENTH)
    assert [second.here, third.here] == [False, True]
    third.work(TENTH)
    assert second.here


async def test_a_message_that_is_whole_before_it_was_granted_is_counted(budget: Budget) -> None:
    first, second = Message(budget, ALL), Message(budget, ALL)
    second.work(ALL)
    first.give_back()
    assert second.here
    assert not Message(budget, TENTH).here


async def test_the_newest_that_waits_goes_first(budget: Budget) -> None:
    first = Message(budget, ALL)
    waiting = [Message(budget, ALL) for _ in range(3)]
    first.give_back()
    assert [message.here for message in waiting] == [False, False, True]


async def test_what_is_slow_makes_room_while_others_wait(budget: Budget, clock: Clock) -> None:
    slow, working = Message(budget, 5 * TENTH), Message(budget, 5 * TENTH)
    working.work(5 * TENTH)
    clock.now += PATIENCE_SECONDS + 0.01
    budget.look()
    assert [slow.heard, working.heard] == ["", ""], "nobody waits for it"
    waiting = Message(budget, TENTH)
    budget.look()
    assert [slow.heard, working.heard, waiting.heard] == ["lost", "", "granted"]


async def test_what_goes_on_is_not_slow(budget: Budget, clock: Clock) -> None:
    coming = Message(budget, ALL)
    clock.now += PATIENCE_SECONDS
    coming.goes_on()
    waiting = Message(budget, TENTH)
    clock.now += 0.01
    budget.look()
    assert [coming.heard, waiting.heard] == ["", ""]


async def test_where_many_wait_what_cannot_be_seen_to_go_on_is_given_less_time(budget: Budget, clock: Clock) -> None:
    seen, blind = Message(budget, ALL // 2), Blind(budget, ALL // 2)
    waiting = [Message(budget, ALL // 2) for _ in range(2 * FEW_WAITING)]
    clock.now += PATIENCE_SECONDS / 2
    budget.look()
    assert [seen.heard, blind.heard] == ["", "lost"]
    assert not waiting[-1].here, "gRPC still receives it"
    blind.give_back()
    assert waiting[-1].here


async def test_one_that_waits_for_long_is_refused(budget: Budget, clock: Clock) -> None:
    working = Message(budget, ALL)
    working.work(ALL)
    waiting = Message(budget, TENTH)
    clock.now += WAIT_SECONDS + 0.01
    budget.look()
    assert waiting.heard == "lost"
    working.give_back()
    assert not waiting.here


async def test_of_very_many_that_wait_the_oldest_is_refused(budget: Budget) -> None:
    Message(budget, ALL)
    waiting = [Message(budget, ALL) for _ in range(MOST_WAITING + 2)]
    assert [message.heard for message in waiting] == ["lost"] * 2 + [""] * MOST_WAITING


async def test_an_answer_that_is_not_read_makes_room(budget: Budget, clock: Clock) -> None:
    answer = Message(budget, TENTH)
    answer.send(2 * ALL)
    waiting = Message(budget, TENTH)
    assert not waiting.here
    clock.now += PATIENCE_SECONDS + 0.01
    budget.look()
    assert [answer.heard, waiting.heard] == ["lost", "granted"]


async def test_what_waits_hears_of_it_by_itself(clock: Clock) -> None:
    budget = Budget(ALL, Metrics())
    slow, waiting = Message(budget, ALL), Message(budget, ALL)
    async with asyncio.timeout(30):
        while not waiting.heard:
            await asyncio.sleep(0)
    assert [slow.heard, waiting.heard] == ["lost", "granted"]


async def test_a_whole_message_that_is_small_takes_nothing(budget: Budget) -> None:
    small = Message(budget, ALL)
    small.work(memory.FREE_BYTES)
    assert Message(budget, ALL).here


async def test_giving_back_twice_is_giving_back_once(budget: Budget) -> None:
    first, second = Message(budget, 5 * TENTH), Message(budget, 5 * TENTH)
    first.give_back()
    first.give_back()
    assert second.here
    assert not Message(budget, 6 * TENTH).here


def test_a_process_that_has_grown_is_trimmed_until_that_is_its_size() -> None:
    sizes = iter([100, 104, 109, 108, 107, 107, 101, 112, 110, 110, 110])
    growth = memory.Growth(lambda: next(sizes) * 2**20)
    told = [growth.calls_for_trim() for _ in range(10)]
    assert told == [False, True, True, True, False, False, True, True, True, False]


LIMIT = 200 * 2**20


def made(folder: Path, groups: str, limits: dict[str, str]) -> tuple[Path, Path]:
    """Make a /proc whose process is in these groups, and a /sys/fs/cgroup with these files."""
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(groups)
    for name, text in limits.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(f"{text}\n")
    return proc, cgroups


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": str(LIMIT)}, LIMIT),
        ("0::/\n", {"memory.max": "max"}, MACHINE),
        ("0::/a/b\n", {"a/memory.max": str(LIMIT), "a/b/memory.max": "max"}, LIMIT),
        ("0::/a/b\n", {"a/memory.max": str(2 * LIMIT), "a/b/memory.max": str(LIMIT)}, LIMIT),
        ("0::/of/the/host\n", {"memory.max": str(LIMIT)}, LIMIT),
        ("4:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": str(LIMIT)}, LIMIT),
        ("4:memory:/of/the/host\n", {"memory/memory.limit_in_bytes": str(LIMIT)}, LIMIT),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": str(LIMIT)}, MACHINE),
        ("", {}, MACHINE),
    ],
)
def test_the_limit_is_the_least_of_its_control_groups(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: int
) -> None:
    assert memory.limit_bytes(*made(tmp_path, groups, limits)) == expected


def test_without_control_groups_there_is_the_machine_s_memory(tmp_path: Path) -> None:
    assert memory.limit_bytes(tmp_path, tmp_path) == MACHINE


def test_what_is_used_already_is_not_for_bytes_in_transit() -> None:
    resident = memory.resident_bytes()
    assert resident > 0
    assert memory.capacity(resident // 2) == 0
    assert 0 < memory.capacity(100 * resident) < 100 * resident // memory.PART
