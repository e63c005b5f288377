import msgspec

from sie_protocol.status import ModelStatus, WorkerStatus


def test_an_empty_frame_reads_as_a_worker_that_must_not_be_used() -> None:
    frame = msgspec.json.decode(b"{}", type=WorkerStatus)
    assert not frame.ready
    assert frame.loaded_models == ()


def test_fields_of_other_generations_are_ignored() -> None:
    frame = msgspec.json.decode(b'{"ready":true,"counters":{"a":1},"server":{"pid":1}}', type=WorkerStatus)
    assert frame.ready


def test_the_queue_of_a_worker_is_that_of_all_its_models() -> None:
    frame = WorkerStatus(models=(ModelStatus(name="a", queue_depth=2), ModelStatus(name="b", queue_depth=3)))
    assert frame.queue_depth == 5
    assert msgspec.json.decode(msgspec.json.encode(frame), type=WorkerStatus) == frame
