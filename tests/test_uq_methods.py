"""One call for every method: train what the case asks for, and load what a folder holds."""

import numpy as np
import pytest
import torch
from train_cases import case, square, squares

from gno.train import Uncertainty, train
from gno.uq import (
    Calibrated,
    Ensemble,
    LastLayerLaplace,
    MonteCarloDropout,
    Variational,
    load_uncertain,
    train_uncertain,
)

OPTIONS = {"meshes": {"train": squares(3)}, "progress": False}
KINDS = {
    "ensemble": (Ensemble, 2),
    "dropout": (MonteCarloDropout, 4),
    "variational": (Variational, 4),
    "laplace": (LastLayerLaplace, 4),
}


@pytest.fixture(scope="module", autouse=True)
def no_curves():
    """Pictures of the training take longer than the training here, and have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gno.post.curves.draw_curves", lambda *_: None)
        yield


@pytest.mark.parametrize("method", KINDS)
def test_a_folder_knows_its_method(method, tmp_path):
    kind, n_samples = KINDS[method]
    wanted = case(epochs=1).model_copy(update={"uncertainty": Uncertainty(method=method, members=2, samples=4)})
    sampler = train_uncertain(wanted, tmp_path, **OPTIONS)
    again = load_uncertain(tmp_path)
    assert type(sampler) is type(again) is kind
    first, second = (s.predict(square(9)) for s in (sampler, again))
    assert first.field("u").n_samples == n_samples and first.field("u").std.min() > 0
    assert np.array_equal(first.mesh.point_fields["std_u"], second.mesh.point_fields["std_u"])


def test_a_finished_run_is_given_a_posterior_but_not_other_weights(tmp_path):
    plain = train(case(epochs=1), tmp_path, **OPTIONS).model.state_dict()
    wanted = {m: case(epochs=1).model_copy(update={"uncertainty": Uncertainty(method=m, samples=4)}) for m in KINDS}
    laplace = train_uncertain(wanted["laplace"], tmp_path, resume=True, **OPTIONS)
    assert all(torch.equal(value, plain[name]) for name, value in laplace.run.model.state_dict().items())
    with pytest.raises(ValueError, match=r"operator\.dropout: expected 0\.0 as in the run"):
        train_uncertain(wanted["dropout"], tmp_path, resume=True, **OPTIONS)


def test_a_run_without_doubt_is_told_apart(tmp_path):
    train(case(epochs=1), tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match=r"expected a run with \[uncertainty\]"):
        load_uncertain(tmp_path)


@pytest.mark.parametrize("method", ["ensemble", "laplace"])
def test_a_plain_run_takes_the_place_of_what_a_folder_held(method, tmp_path):
    wanted = case(epochs=1).model_copy(update={"uncertainty": Uncertainty(method=method, members=2, samples=4)})
    train_uncertain(wanted, tmp_path, **OPTIONS)
    with pytest.raises(FileExistsError, match="expected a folder without a run, got one"):
        train(case(epochs=1), tmp_path, **OPTIONS)
    if method == "ensemble":
        with pytest.raises(ValueError, match="expected a run of one operator to resume, got an ensemble"):
            train(case(epochs=1), tmp_path, resume=True, **OPTIONS)
    else:  # goes on from the weights, to others than those whose doubt is known
        train(case(epochs=2), tmp_path, resume=True, **OPTIONS)
        assert not Calibrated.load(tmp_path).has_doubt
        train_uncertain(wanted, tmp_path, resume=True, **OPTIONS)
    plain = train(case(epochs=1, seed=3), tmp_path, overwrite=True, **OPTIONS)
    found = Calibrated.load(tmp_path)
    assert not found.has_doubt and not list(tmp_path.glob("member_*"))
    for one, other in zip(plain.model.parameters(), found.sampler.operator.model.parameters(), strict=True):
        assert torch.equal(one, other)
