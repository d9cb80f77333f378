"""The ethanol of rMD17 that comes with geoeq: it is that of the archive, in the same units, and its parts are apart."""

from __future__ import annotations

import numpy as np
import pytest

from geoeq.data import Dataset, load
from geoeq.data.card import load_card
from geoeq.files import file_sha256
from geoeq.resources import share


@pytest.fixture(scope="module")
def ethanol(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """All of it, converted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOEQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load("rmd17_ethanol")


def test_its_parts_have_the_sizes_of_the_papers_and_no_structure_in_common(ethanol):
    parts = {
        part: {ethanol.positions[start : start + 9].round(6).tobytes() for start in ethanol.ptr[places]}
        for part, places in ethanol.split().items()
    }
    assert {part: len(structures) for part, structures in parts.items()} == {"train": 950, "valid": 50, "test": 1000}
    assert len(set().union(*parts.values())) == 2000


def test_it_is_the_ethanol_of_the_archive_in_other_units(ethanol):
    """The sample of rMD17 has kcal/mol, and the first 60 structures of the training file."""
    archive = load("rmd17", sample=True)
    np.testing.assert_array_equal(ethanol.numbers[:9], archive.numbers[:9])
    np.testing.assert_allclose(ethanol.targets["energy"][:60], archive.targets["energy"][:60], rtol=0, atol=1e-8)
    np.testing.assert_allclose(ethanol.targets["forces"][:540], archive.targets["forces"][:540], rtol=0, atol=1e-7)


def test_its_card_knows_the_files_that_lie_beside_it():
    card = load_card("rmd17_ethanol")
    for source in card.sources:
        path = share("datasets") / card.name / source.file
        assert (path.stat().st_size, file_sha256(path)) == (source.bytes, source.sha256)
