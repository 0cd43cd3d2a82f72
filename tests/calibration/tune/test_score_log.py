"""Counts survive an interruption, and those of another search are not taken for this one's."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.calibration.tune.candidate import Candidate
from atrous.calibration.tune.score_log import ScoreLog
from atrous.crf import CRFParams
from atrous.errors import CRFError

FIRST, SECOND = Candidate(CRFParams.deeplab_v2_resnet()), Candidate(CRFParams.deeplab_v2_vgg(), 3)
COUNTS = np.arange(12).reshape(3, 4)
IDENTITY = {"metric": "miou", "sizes": (1, 2)}


@pytest.fixture
def path(tmp_path):
    log = ScoreLog(tmp_path / "work" / "scores.jsonl", IDENTITY)
    log.add("a", None, COUNTS)
    log.add("a", FIRST, COUNTS + 1)
    log.add("b", SECOND, COUNTS + 2)
    log.sync()
    log.close()
    return tmp_path / "work" / "scores.jsonl"


def test_what_was_added_is_there_again(path):
    log = ScoreLog(path, IDENTITY)
    assert ("a", FIRST) in log
    assert ("b", FIRST) not in log
    assert np.array_equal(log.find("a", None), COUNTS)
    assert np.array_equal(log.find("b", SECOND), COUNTS + 2)
    log.close()


@pytest.mark.parametrize("cut", [1, 30])
def test_half_a_line_is_cut_off(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    log = ScoreLog(path, IDENTITY)
    assert ("a", FIRST) in log
    assert ("b", SECOND) not in log
    log.add("b", SECOND, COUNTS)
    log.close()
    again = ScoreLog(path, IDENTITY)
    assert np.array_equal(again.find("b", SECOND), COUNTS)
    again.close()


def test_a_damaged_line_ends_what_is_known(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"image": 3}\n', *lines[2:]]))
    log = ScoreLog(path, IDENTITY)
    assert ("a", None) in log
    assert ("a", FIRST) not in log
    log.close()


@pytest.mark.parametrize("content", [None, b"", b"something else\n"])
def test_another_search_begins_anew(path, content):
    if content is not None:
        path.write_bytes(content)
    log = ScoreLog(path, {**IDENTITY, "metric": "trimap"})
    assert ("a", None) not in log
    log.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CRFError, match=r"cannot keep the search in .*choose another folder"):
        ScoreLog(tmp_path / "file" / "scores.jsonl", IDENTITY)


def test_two_searches_do_not_share_a_file(path):
    log = ScoreLog(path, IDENTITY)
    with pytest.raises(CRFError, match=r"another search goes on in .*work; wait for it"):
        ScoreLog(path, IDENTITY)
    log.close()
    ScoreLog(path, IDENTITY).close()
