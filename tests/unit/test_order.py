"""Order of steps: the rules one by one, then what must hold of any runbook."""

from __future__ import annotations

import random as randomness

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.model import Phase, Runbook, Step, StepId
from engine.core.order import CycleError, Graph
from engine.errors import Position

HERE = Position("x.yml", 1, 1)


def step(step_id: str, *needs: str) -> Step:
    return Step(StepId(step_id), step_id.partition("/")[0], step_id, "noop", {}, HERE, tuple(map(StepId, needs)))


def phase(name: str, *steps: Step, needs: tuple[str, ...] = ()) -> Phase:
    return Phase(name, name, steps, HERE, needs)


def runbook(*phases: Phase) -> Runbook:
    return Runbook("r", "R", phases)


def test_as_written_where_nothing_says_otherwise() -> None:
    book = runbook(phase("a", step("a/2"), step("a/1")), phase("b", step("b/1"), needs=("a",)))
    assert Graph(book).order == ("a/2", "a/1", "b/1")


def test_a_need_moves_a_step_behind_what_it_needs() -> None:
    book = runbook(phase("a", step("a/1", "a/3"), step("a/2"), step("a/3")))
    assert Graph(book).order == ("a/2", "a/3", "a/1")


def test_a_phase_waits_for_every_step_of_the_phase_it_needs() -> None:
    graph = Graph(runbook(phase("a", step("a/1"), step("a/2")), phase("b", step("b/1"), needs=("a",))))
    assert graph.ready([]) == ("a/1", "a/2")
    assert graph.ready([StepId("a/1")]) == ("a/2",)
    assert graph.ready([StepId("a/1"), StepId("a/2")]) == ("b/1",)


def test_an_empty_phase_passes_the_wait_on() -> None:
    graph = Graph(runbook(phase("a", step("a/1")), phase("b", needs=("a",)), phase("c", step("c/1"), needs=("b",))))
    assert graph.ready([]) == ("a/1",)
    assert graph.ancestors(StepId("c/1")) == {"a/1"}


def test_phases_without_needs_run_side_by_side() -> None:
    graph = Graph(runbook(phase("a", step("a/1")), phase("b", step("b/1"))))
    assert graph.ready([]) == ("a/1", "b/1")


def test_what_waits_for_a_failed_step_is_never_ready() -> None:
    graph = Graph(runbook(phase("a", step("a/1"), step("a/2", "a/1"), step("a/3"))))
    assert graph.ready([], failed=[StepId("a/1")], running=[StepId("a/3")]) == ()


def test_a_circle_is_named_in_its_order() -> None:
    book = runbook(phase("a", step("a/0", "a/1"), step("a/1", "a/2"), step("a/2", "a/1")))
    with pytest.raises(CycleError) as caught:
        Graph(book)
    assert caught.value.steps == ("a/1", "a/2")
    assert str(caught.value) == "these wait for each other: a/1 → a/2 → a/1"


def test_a_circle_through_phases_is_found() -> None:
    book = runbook(phase("a", step("a/1", "b/1")), phase("b", step("b/1"), needs=("a",)))
    with pytest.raises(CycleError) as caught:
        Graph(book)
    assert set(caught.value.members) == {"a/1", "phase a", "phase b", "b/1"}


@st.composite
def runbooks(draw: st.DrawFn) -> Runbook:
    """Any runbook without circles: a step needs steps before it in a random order, a phase phases before it."""
    phases = []
    for p in range(draw(st.integers(1, 4))):
        ids = [f"p{p}/s{i}" for i in draw(st.permutations(range(draw(st.integers(0, 5)))))]
        steps = [
            step(name, *draw(st.lists(st.sampled_from(ids[:i]), max_size=3))) if i else step(name)
            for i, name in enumerate(ids)
        ]
        shuffled = draw(st.permutations(steps))
        needs = draw(st.lists(st.sampled_from([f"p{q}" for q in range(p)]), max_size=2)) if p else []
        phases.append(phase(f"p{p}", *shuffled, needs=tuple(needs)))
    return runbook(*draw(st.permutations(phases)))


def closure(book: Runbook) -> dict[str, set[str]]:
    """An independent model: what each step waits for, every phase wait written out step by step."""

    def all_of(name: str) -> set[str]:
        found = book.phase(name)
        return {s.id for s in found.steps}.union(*(all_of(n) for n in found.needs))

    direct = {s.id: set(s.needs).union(*(all_of(n) for n in p.needs)) for p in book.phases for s in p.steps}
    done = False
    while not done:
        grown = {s: n.union(*(direct[m] for m in n)) for s, n in direct.items()}
        done, direct = grown == direct, grown
    return direct


@given(runbooks())
def test_every_step_once_and_after_what_it_waits_for(book: Runbook) -> None:
    graph, model = Graph(book), closure(book)
    assert sorted(graph.order) == sorted(s.id for s in book.steps())
    for i, one in enumerate(graph.order):
        assert graph.ancestors(one) == model[one] <= set(graph.order[:i])


@given(runbooks(), st.randoms())
def test_running_whatever_is_ready_reaches_the_end(book: Runbook, random: randomness.Random) -> None:
    graph, model = Graph(book), closure(book)
    done: list[StepId] = []
    while len(done) < len(graph.order):
        ready = graph.ready(done)
        assert set(ready) == {s for s in graph.order if s not in done and model[s] <= set(done)}
        done.append(random.choice(ready))
