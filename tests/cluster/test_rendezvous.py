import socket
import urllib.error
import urllib.request

import psutil
import pytest

from bertkit.cluster.membership import prefer_what_is_set
from bertkit.cluster.rendezvous import Rendezvous
from bertkit.errors import ClusterError


def test_every_rank_learns_its_place():
    with Rendezvous(["a", "a", "b"]) as rendezvous:
        places = [rendezvous.environment(rank) for rank in range(3)]
    assert [place["HOROVOD_RANK"] for place in places] == ["0", "1", "2"]
    assert [place["HOROVOD_LOCAL_RANK"] for place in places] == ["0", "1", "0"]
    assert [place["HOROVOD_LOCAL_SIZE"] for place in places] == ["2", "2", "1"]
    assert [place["HOROVOD_CROSS_RANK"] for place in places] == ["0", "0", "1"]
    assert {place["HOROVOD_SIZE"] for place in places} == {"3"}


def test_the_users_settings_win_but_not_over_a_ranks_place():
    users = {"HOROVOD_CYCLE_TIME": "1", "HOROVOD_GLOO_IFACE": "eth7", "HOROVOD_RANK": "9"}
    with Rendezvous(["here", "here"]) as rendezvous:
        plain = rendezvous.environment(1)
    assert prefer_what_is_set(plain, {}) == plain
    assert prefer_what_is_set(plain, users | {"HOME": "/"}) == plain | {
        "HOROVOD_CYCLE_TIME": "1", "HOROVOD_GLOO_IFACE": "eth7", "HOROVOD_RANK": "1",
    }  # fmt: skip
    assert float(plain["HOROVOD_CYCLE_TIME"]) > 1  # Horovod's own


def test_keeps_what_ranks_put_there():
    with Rendezvous(["here"]) as rendezvous:
        where = rendezvous.environment(0)
        url = (
            f"http://{where['HOROVOD_GLOO_RENDEZVOUS_ADDR']}:"
            f"{where['HOROVOD_GLOO_RENDEZVOUS_PORT']}/global/0"
        )
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url, timeout=5)
        put = urllib.request.Request(url, data=b"address", method="PUT")
        urllib.request.urlopen(put, timeout=5).close()
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.read() == b"address"


def test_listens_on_loopback_only_and_frees_its_port():
    rendezvous = Rendezvous(["here"])
    port = int(rendezvous.environment(0)["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    listening = {
        each.laddr.ip
        for each in psutil.Process().net_connections("tcp")
        if each.laddr.port == port and each.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    rendezvous.close()
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


def test_ranks_of_a_host_must_be_neighbours():
    with pytest.raises(ClusterError, match="neighbours"):
        Rendezvous(["a", "b", "a"])


def test_unknown_interface():
    with pytest.raises(ClusterError, match="nonesuch0"):
        Rendezvous(["here"], interface="nonesuch0")
