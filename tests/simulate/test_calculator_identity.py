"""A calculator shared by threads, copied, pickled, and recorded in databases; potentials without derivatives."""

from __future__ import annotations

import copy
import pickle
import sys
import threading

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.db import connect

from geoeq.errors import InputError
from geoeq.models import EGNN, Forces, GraphScalar
from geoeq.models.checkpoint import checkpoint_sha256, save_checkpoint
from geoeq.simulate import GeoeqCalculator, export_potential


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EGNN([GraphScalar("energy")], width=8, layers=2, cutoff=4.0).double()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Written in inference mode, which must not matter."""
    path = tmp_path_factory.mktemp("exported") / "egnn.pt2"
    with torch.inference_mode():
        export_potential(model, path, compiled=False)
    return path


def test_threads_share_a_calculator(model):
    """Each gets the forces of its own structure, whatever the others ask at the same time."""
    structures = [molecule(name) for name in ("CH4", "H2O", "NH3", "CH3OH")]
    right = [GeoeqCalculator(model).get_property("forces", atoms) for atoms in structures]
    shared, wrong = GeoeqCalculator(model), []

    def ask(k):
        for _ in range(24):
            try:
                if not np.allclose(shared.get_property("forces", structures[k]), right[k], rtol=0, atol=1e-12):
                    wrong.append(k)
            except Exception as error:  # of a thread that finds the arrays of another
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(structures))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_databases_record_the_model(model, exported, tmp_path):
    save_checkpoint(model, tmp_path / "run")
    digest = checkpoint_sha256(tmp_path / "run")
    database = connect(tmp_path / "calculations.db")
    for source in (model, tmp_path / "run", exported):
        atoms = molecule("CH4")
        atoms.calc = GeoeqCalculator(source)
        atoms.get_forces()
        row = database.get(database.write(atoms))
        assert row.calculator == "geoeqcalculator"
        recorded = row.calculator_parameters
        assert (recorded["model"], recorded["dtype"], recorded["sha256"]) == ("EGNN", "float64", digest)
        assert recorded.get("path") == (None if source is model else str(source))


def test_copies_are_calculators_of_their_own(model):
    calculator, atoms = GeoeqCalculator(model), molecule("CH4")
    right = calculator.get_property("forces", atoms)
    for twin in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        assert np.array_equal(twin.get_property("forces", atoms), right)


def test_the_hessian_has_two_names(model):
    calculator, atoms = GeoeqCalculator(model), molecule("H2O")
    assert np.array_equal(calculator.get_hessian(atoms), calculator.hessian(atoms))
    assert abs(calculator.hessian(atoms)).max() > 1e-6


def test_an_exported_potential_has_no_hessian(exported):
    """Its forces have no derivatives; they were taken for zero."""
    calculator, atoms = GeoeqCalculator(exported), molecule("H2O")
    with torch.inference_mode():
        assert abs(calculator.get_property("forces", atoms)).max() > 1e-6
    with pytest.raises(InputError, match="No differentiable operations connect 'forces' to the positions"):
        calculator.hessian(atoms)


def test_an_energy_without_derivatives_is_not_exported(model, tmp_path):
    class Detached(EGNN):
        def forward(self, data):
            return {name: value.detach() for name, value in super().forward(data).items()}

    with pytest.raises(InputError, match="connect 'energy' to the positions"):
        export_potential(Detached(**model.arguments).double(), tmp_path / "egnn.pt2", compiled=False)
    with pytest.raises(InputError, match="connect 'energy' to the positions"):
        GeoeqCalculator(Forces(Detached(**model.arguments))).get_property("forces", molecule("H2O"))
