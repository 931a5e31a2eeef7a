import pickle
import threading

import pytest

from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.errors import DataError, StorageError


def test_each_is_named_once_with_its_reason(tmp_path):
    path = tmp_path / "workdir" / "bad_examples.txt"
    bad = BadExamples("set", 100, 0.02, path)
    for _ in range(3):
        bad.add(7, "a/b.jpg", "image file\nis truncated")
        bad.add(9, "c\td.jpg", "empty")
    assert path.read_text() == "7\ta/b.jpg\timage file is truncated\n9\tc d.jpg\tempty\n"


@pytest.mark.parametrize(("fraction", "allowed"), [(0.0, 0), (0.01, 1), (0.02, 2), (0.011, 2), (0.07, 7)])
def test_the_limit_is_a_share_rounded_up(fraction, allowed):
    bad = BadExamples("set", 100, fraction)
    for index in range(allowed):
        bad.add(index, str(index), "why")
        bad.add(index, str(index), "why")
    with pytest.raises(DataError, match=f"{allowed + 1} of the 100 images of set cannot .* allows {allowed}; the last"):
        bad.add(allowed, "x", "why")


def test_too_many_names_the_list_and_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"listed in .*bad\.txt: repair.* delete that list, or raise data\.max_bad"):
        BadExamples("set", 100, 0.0, tmp_path / "bad.txt").add(0, "x", "why")


def test_a_resumed_run_goes_on_with_the_list(tmp_path):
    path = tmp_path / "bad.txt"
    BadExamples("set", 100, 0.02, path).add(3, "x", "why")
    resumed = BadExamples("set", 100, 0.02, path)
    resumed.add(3, "x", "why")
    resumed.add(4, "y", "why")
    assert path.read_text().count("\n") == 2
    with pytest.raises(DataError, match="3 of the 100"):
        resumed.add(5, "z", "why")


def test_threads_and_workers_share_one_count(tmp_path):
    path = tmp_path / "bad.txt"
    bad = BadExamples("set", 1000, 0.06, path)
    workers = [bad, pickle.loads(pickle.dumps(bad)), pickle.loads(pickle.dumps(bad))]

    def add(worker):
        for index in range(60):
            worker.add(index, str(index), "why")

    threads = [threading.Thread(target=add, args=(workers[i % 3],)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(line.split("\t")[0]) for line in path.read_text().splitlines()) == list(range(60))
    with pytest.raises(DataError, match="61 of the 1000"):
        workers[1].add(60, "x", "why")


def test_a_list_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/bad\.txt cannot be written"):
        BadExamples("set", 100, 0.1, tmp_path / "file" / "bad.txt").add(0, "x", "why")
