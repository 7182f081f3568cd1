"""What `gno train` says would help, at its end."""

from types import SimpleNamespace

import pytest

from gno.train import advice

STEADY = SimpleNamespace(time=None, physics=None)


class Fitted:
    """A run whose error on a file is the number that the file is called by."""

    def __init__(self, case=STEADY):
        self.blueprint, self.seen = SimpleNamespace(case=case), []

    def evaluate(self, files):
        self.seen.append(files)
        return SimpleNamespace(mean={"u": sum(map(float, files)) / len(files)})


@pytest.mark.parametrize(
    ("known", "unseen", "says"),
    [
        ("0.10", "0.12", "12.00% on 1 validation files: more minutes would help most"),
        ("0.10", "0.20", "10.00% on 1 training files, 20.00% on 1 validation files: both"),
        ("0.10", "0.40", "more files would help"),
        ("0.80", "1.90", "more minutes would help most"),  # nothing is learned yet
    ],
)
def test_a_gap_asks_for_files_and_none_for_minutes(known, unseen, says):
    assert says in advice.advise(Fitted(), [known], [unseen])


def test_files_are_taken_from_all_over():
    run = Fitted()
    advice.advise(run, [f"{k + 1}" for k in range(100)], ["1", "2"])
    assert len(run.seen[0]) == advice.MOST and run.seen[0][0] == "1" and float(run.seen[0][-1]) > 95
    assert run.seen[1] == ["1", "2"]


@pytest.mark.parametrize("case", [SimpleNamespace(time=1, physics=None), SimpleNamespace(time=None, physics=1)])
def test_nothing_is_said_of_series_and_equations(case):
    assert advice.advise(Fitted(case), ["0.1"], ["0.1"]) == ""


@pytest.mark.parametrize("known", ["0", "nan"])
def test_nothing_is_said_without_validation_files_or_errors(known):
    assert advice.advise(Fitted(), ["0.1"], []) == advice.advise(Fitted(), [known], ["0.1"]) == ""
