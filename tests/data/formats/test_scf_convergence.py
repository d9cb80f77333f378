"""Steps whose self-consistent field did not converge are left out, with a note."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoeq.data import load
from geoeq.data.formats.scf_convergence import unconverged_steps
from geoeq.errors import DataError


def varray(name: str, rows: np.ndarray) -> str:
    return f'<varray name="{name}" >{"".join(f"<v> {x} {y} {z} </v>" for x, y, z in rows)}</varray>'


def vasprun(steps: list[int], limit: int) -> str:
    """A vasprun.xml of one atom whose ionic steps have these numbers of electronic steps; energies are -1, -2, .."""
    text = '<?xml version="1.0" encoding="ISO-8859-1"?><modeling><kpoints/>'
    text += f'<parameters><i type="int" name="NELM"> {limit}</i></parameters>'
    text += '<atominfo><array name="atoms"><set><rc><c>Na</c><c>1</c></rc></set></array></atominfo>'
    crystal = f"<crystal>{varray('basis', np.eye(3) * 5)}</crystal>{varray('positions', np.zeros((1, 3)))}"
    text += f'<structure name="initialpos">{crystal}</structure>'
    for number, count in enumerate(steps, 1):
        names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
        energy = "<energy>" + "".join(f'<i name="{name}">{-number}</i>' for name in names) + "</energy>"
        scf = f"<scstep>{energy}</scstep>" * count
        forces = varray("forces", np.zeros((1, 3)))
        text += f"<calculation>{scf}<structure>{crystal}</structure>{forces}{energy}</calculation>"
    return text + "</modeling>"


def outcar(steps: list[tuple[int, bool]], limit: int) -> str:
    """The lines of an OUTCAR about convergence."""
    text = f"   NELM   =     {limit};   NELMIN=  2; NELMDL= -5     # of ELM steps\n"
    for number, (count, reached) in enumerate(steps, 1):
        for step in range(1, count + 1):
            text += f"----------------- Iteration {number:6d}({step:4d})  ------------------\n"
        text += "--------------- aborting loop because EDIFF is reached ---------------\n" if reached else ""
        text += "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"
    return text


def test_steps_of_a_vasprun_that_stopped_at_nelm_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun([4, 6, 3, 6], 6))
    dataset = load(path)
    assert dataset.targets["energy"].tolist() == [-1, -3]
    assert (
        "2 of 4 steps of vasprun.xml are left out: their SCF stopped at NELM electronic steps without convergence "
        "(steps 1, 3, counted from 0)." in dataset.notes
    )
    path.write_text(vasprun([6, 6], 6))
    with pytest.raises(DataError, match=r"no structures that can be used\. 2 of 2 steps of vasprun.xml are left out"):
        load(path)


def test_steps_of_an_outcar(tmp_path: Path) -> None:
    path = tmp_path / "OUTCAR"
    path.write_text(outcar([(7, True), (15, False), (15, True), (3, False), (15, False)], 15))
    failed, note = unconverged_steps(path, "vasp-out", 5)
    assert failed == {1, 4}, "15 steps of which the last reached EDIFF are converged"
    assert note.startswith("2 of 5 steps of OUTCAR are left out")
    path.write_text(outcar([(7, True)], 15))
    assert unconverged_steps(path, "vasp-out", 1) == (set(), "")


def test_other_programs_say_so_in_words(tmp_path: Path) -> None:
    path = tmp_path / "x.out"
    path.write_text("     convergence NOT achieved after 100 iterations: stopping\n")
    with pytest.raises(DataError, match="the SCF of a step did not converge"):
        unconverged_steps(path, "espresso-out", 1)
    assert unconverged_steps(path, "cif", 1) == (set(), "")
