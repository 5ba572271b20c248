import json

import numpy as np
import pytest
import tensorflow as tf

from bertkit.errors import TrainingError
from bertkit.events import Notice
from bertkit.training.world import HorovodWorld, SingleWorld, is_loss_of_a_rank


@pytest.fixture(scope="module")
def findings(cluster, tmp_path_factory):
    """What two ranks found when they used every collective, rank by rank."""
    from bertkit.config import Config

    config = Config(
        output=str(tmp_path_factory.mktemp("runs")), train_file=json.dumps({"do": "collectives"})
    )
    run = cluster.train(config)
    while run.running:
        run._supervision.wait(1)
    assert run.failure is None, run.failure.details
    (notice,) = [event for event in run.history() if isinstance(event, Notice)]
    return json.loads(notice.message)


def test_sums(findings):
    for rank in findings:
        assert rank["none"] == [
            ["float32", [[3.0, 3.0]] * 3],
            ["float32", [6147.0]],
            ["float32", [[1.0, 1.0]] * 2],  # bfloat16, shown as float32
            ["int32", [[1, 2]]],
            ["float64", pytest.approx(0.3)],
            ["float32", [[4097.0]]],
        ]
        assert rank["eager"] == [3.0]
        assert rank["odd_shape"] == 2 * 15


def test_half_precision_is_for_matrices_only(findings):
    for rank in findings:
        assert rank["float16"][0] == ["float32", [[3.0, 3.0]] * 3]
        assert rank["float16"][1] == ["float32", [6147.0]]  # float16 knows 6144 and 6148
        assert rank["float16"][5] == ["float32", [[4096.0]]]  # float16 does not know 2049 nor 4097


def test_sums_are_the_same_bits_on_every_rank(findings):
    assert findings[0]["none"] == findings[1]["none"]
    assert findings[0]["float16"] == findings[1]["float16"]


def test_broadcast_brings_rank_0s_bits_in_every_dtype(findings):
    third = float(tf.cast(tf.cast(1 / 3, tf.bfloat16), tf.float32))
    expected = [[np.float32(0.1)], [True], [7], [third], [], [0], [0.0], [0.0]]
    for rank in findings:
        assert rank["broadcast"] == expected


def test_sum_is_float64(findings):
    for rank in findings:
        assert rank["sum"] == [[0.2, 1.0], [2e-17, 2.0]]


def test_gather_and_share(findings):
    assert findings[0]["gather"] == [[0, ""], [1, "ä\n" * 1000]]
    assert findings[1]["gather"] is None
    for rank in findings:
        assert rank["share"] == {"of": 0, "none": None, "pair": [1, 2.5]}


def test_single_world_does_as_one_rank_would():
    world = SingleWorld()
    assert world.gather((1, {"a": 2})) == [[1, {"a": 2}]]
    assert world.share((1,)) == [1]
    values = np.array([1.0, 2.0])
    assert world.sum(values).tolist() == [1.0, 2.0]
    assert world.sum(values) is not values
    (total,) = world.sum_tensors([tf.constant([1.0])], compression="float16")
    assert total.numpy().tolist() == [1.0]
    variable = tf.Variable(3.0)
    world.broadcast([variable])
    world.barrier()
    assert variable.numpy() == 3.0
    with pytest.raises(ValueError, match="compression"):
        world.sum_tensors([], compression="float8")


def test_a_process_that_is_no_rank_is_told_so():
    with pytest.raises(TrainingError, match="horovodrun"):
        HorovodWorld()


def test_only_horovods_and_gloos_words_count_as_the_loss_of_a_rank():
    lost = tf.errors.UnknownError(None, None, "Horovod has been shut down. This was caused by")
    assert is_loss_of_a_rank(lost)
    in_the_middle = (
        "[/build/third_party/gloo/gloo/transport/tcp/pair.cc:589] Read error: reset by peer"
    )
    assert is_loss_of_a_rank(tf.errors.UnknownError(None, None, in_the_middle))
    consequence = ValueError("while cleaning up")
    consequence.__cause__ = lost
    assert is_loss_of_a_rank(consequence)
    assert not is_loss_of_a_rank(tf.errors.UnknownError(None, None, "Mismatched tensor shapes"))
    assert not is_loss_of_a_rank(ValueError("Horovod has been shut down"))
    assert not is_loss_of_a_rank(None)
