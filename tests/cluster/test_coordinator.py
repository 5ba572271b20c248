"""Who meets whom, over the real server, without engines."""

import http.client
import json
import stat

import pytest

from bertkit.cluster import coordinator as module
from bertkit.cluster.coordinator import ADDRESS_FILE, Coordinator, LeftBehind


@pytest.fixture
def coordinator(tmp_path):
    with Coordinator(tmp_path) as coordinator:
        yield coordinator


def expect(coordinator, **hosts):
    for name, host in hosts.items():
        number = int(name.removeprefix("e"))
        coordinator.add(number, {"host": host, "pid": 1000 + number, "cpus": [number]})


def say(coordinator, engine, call, generation=0, **more):
    said = {
        "call": call, "engine": engine, "generation": generation, "token": coordinator.token, **more
    }  # fmt: skip
    connection = http.client.HTTPConnection(coordinator.address, coordinator.port, timeout=5)
    connection.request("POST", "/", json.dumps(said))
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return json.loads(body) if reply.status == 200 else reply.status


def meet(coordinator, engine, generation=0, step=None):
    return say(coordinator, engine, "meet", generation, global_step=step)


def gather(coordinator, generation, **steps):
    """Let some engines come to a meeting and tell what each is told afterwards, by rank."""
    numbers = {int(name.removeprefix("e")): step for name, step in steps.items()}
    for engine, step in numbers.items():
        assert meet(coordinator, engine, generation, step) == {}
    assert coordinator.form()
    told = [meet(coordinator, engine, generation) for engine in numbers]
    assert {place["size"] for place in told} == {len(numbers)}
    return told


def test_the_first_meeting_waits_for_everybody(coordinator):
    expect(coordinator, e0="a", e1="a")
    assert meet(coordinator, 0) == {}
    assert not coordinator.form()
    assert meet(coordinator, 1) == {}
    assert coordinator.form()
    first, second = meet(coordinator, 0), meet(coordinator, 1)
    assert (first["rank"], second["rank"]) == (0, 1)
    assert second["environment"]["HOROVOD_RANK"] == "1"
    assert second["environment"]["HOROVOD_SIZE"] == "2"
    assert first["generation"] == 1
    assert first["news"] == []


def test_or_for_those_that_are_left(coordinator):
    expect(coordinator, e0="a", e1="a")
    meet(coordinator, 1)
    coordinator.lose(0, "engine 0 was killed")
    assert coordinator.form()
    assert meet(coordinator, 1)["news"] == ["engine 0 was killed"]


def test_survivors_go_on_and_a_newcomer_is_taken_in(coordinator):
    expect(coordinator, e0="a", e1="a")
    gather(coordinator, 0, e0=None, e1=None)
    assert say(coordinator, 0, "beat", 1) == {"meet": False}
    coordinator.lose(1, "engine 1 was killed")
    (alone,) = gather(coordinator, 1, e0=7)
    assert alone["rank"] == 0
    assert alone["environment"]["HOROVOD_SIZE"] == "1"

    expect(coordinator, e2="a")
    assert say(coordinator, 2, "beat") == {"meet": False}
    assert meet(coordinator, 2) == {}
    assert not coordinator.form()  # engine 0 has not come yet
    assert say(coordinator, 0, "beat", 2) == {"meet": True}
    assert meet(coordinator, 0, 2, 9) == {}
    assert coordinator.form()
    old, new = meet(coordinator, 0, 2), meet(coordinator, 2)
    assert (old["rank"], new["rank"]) == (0, 1)
    assert "taken in" in new["news"][0]


@pytest.mark.parametrize(
    ("steps", "rank_0"),
    [
        ({"e0": 5, "e1": 5, "e2": 5}, 0),  # rank 0 stays who it was
        ({"e0": 4, "e1": 5, "e2": 5}, 0),  # also where others are a step ahead: it wrote the events
        ({"e1": 4, "e2": 5}, 2),  # without it the newest state counts
        ({"e1": None, "e2": 0}, 2),  # and a newcomer's none does not
    ],
)
def test_who_becomes_rank_0(coordinator, steps, rank_0):
    expect(coordinator, e0="a", e1="a", e2="a")
    gather(coordinator, 0, e0=None, e1=None, e2=None)
    if "e0" not in steps:
        coordinator.lose(0, "engine 0 was killed")
    gather(coordinator, 1, **steps)
    assert coordinator.order[0] == rank_0


def test_ranks_of_a_host_are_neighbours(coordinator):
    expect(coordinator, e0="a", e1="b", e2="a", e3="b")
    told = gather(coordinator, 0, e0=None, e1=None, e2=None, e3=None)
    assert coordinator.order == [0, 2, 1, 3]
    assert [place["environment"]["HOROVOD_LOCAL_RANK"] for place in told] == ["0", "0", "1", "1"]


def test_who_does_not_come_is_stuck_unless_it_says_what_it_does(coordinator, monkeypatch):
    expect(coordinator, e0="a", e1="a", e2="a")
    gather(coordinator, 0, e0=None, e1=None, e2=None)
    assert coordinator.stuck() == []
    monkeypatch.setattr(module, "MEET_SECONDS", 0.0)
    say(coordinator, 1, "beat", 1, stage="Writing a checkpoint")
    say(coordinator, 2, "beat", 1, stage="")
    meet(coordinator, 0, 1, 3)
    assert coordinator.stuck() == [2]


def test_who_is_lost_may_not_come_back(coordinator):
    expect(coordinator, e0="a", e1="a")
    gather(coordinator, 0, e0=None, e1=None)
    coordinator.lose(1, "engine 1 did not answer")
    assert "did not answer" in meet(coordinator, 1, 1, 5)["over"]
    coordinator.end("a rank failed")
    assert meet(coordinator, 0, 1, 5) == {"over": "a rank failed"}


def test_who_comes_when_the_run_is_finished_does_not_begin_it_anew(coordinator):
    expect(coordinator, e0="a", e1="a")
    gather(coordinator, 0, e0=None, e1=None)
    coordinator.lose(1, "engine 1 was killed")
    gather(coordinator, 1, e0=7)
    expect(coordinator, e2="a")
    assert meet(coordinator, 2) == {}
    assert say(coordinator, 0, "report", 2, report={"outcome": "finished"}) == {}
    assert not coordinator.form()
    assert meet(coordinator, 2) == {"over": "the run is finished"}
    assert coordinator.report(0) == {"outcome": "finished"}


def test_strangers_are_refused(coordinator, tmp_path):
    expect(coordinator, e0="a")
    assert say(coordinator, 0, "beat", token="guessed") == 403
    assert say(coordinator, 0, "beat", token=None) == 403
    assert coordinator.address == "127.0.0.1"
    assert stat.S_IMODE((tmp_path / ADDRESS_FILE).stat().st_mode) == 0o600


def test_what_a_dead_client_leaves_behind_is_gone_on_with(tmp_path):
    with Coordinator(tmp_path, profile="/its/profile") as first:
        expect(first, e0="a", e1="b")
        gather(first, 0, e0=None, e1=None)
        assert LeftBehind.of(tmp_path) is None  # its client lives
        text = (tmp_path / ADDRESS_FILE).read_text()
    assert LeftBehind.of(tmp_path) is None  # it ended in order
    (tmp_path / ADDRESS_FILE).write_text(text)
    left = LeftBehind.of(tmp_path)
    assert left.order == [0, 1]
    assert left.profile == "/its/profile"
    assert left.engines[1] == {"host": "b", "pid": 1001, "cpus": [1]}
    with Coordinator(tmp_path, before=left) as second:
        assert second.rank_of(1) == 1
        second.lose(1, "engine 1 was killed")
        (alone,) = gather(second, 1, e0=12)
        assert alone["generation"] == 2
