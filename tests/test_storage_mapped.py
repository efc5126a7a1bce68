"""Safetensors files as mapped arrays."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import save, save_file

from scanonce.storage.stores.mapped import map_tensors
from scanonce.storage.untrusted import DamagedFile

DTYPES = st.sampled_from([np.uint8, np.int64, np.float16, np.float32, np.float64])
ARRAYS = DTYPES.flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=3, min_side=0))
)


@given(st.dictionaries(st.text(min_size=1, max_size=8), ARRAYS, max_size=4))
def test_arrays_are_those_that_safetensors_wrote(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("mapped") / "a.safetensors"
    arrays = {name: array for name, array in arrays.items() if name != "__metadata__"}
    save_file(arrays, path, metadata={"who": "we"})
    mapped = map_tensors(path)
    assert set(mapped) == set(arrays)
    for name, array in arrays.items():
        assert mapped[name].dtype == array.dtype
        np.testing.assert_array_equal(mapped[name], array)
        assert not mapped[name].flags.writeable


def test_every_truncation_and_a_wrong_header_are_noticed(tmp_path: Path) -> None:
    whole = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3)})
    path = tmp_path / "a.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFile):
            map_tensors(path)
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    for change in ({"shape": [2, 4]}, {"dtype": "Q9"}, {"data_offsets": [-4, 20]}, {"shape": None}):
        header = json.dumps({"a": {**entry, **change}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
        with pytest.raises(DamagedFile):
            map_tensors(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        map_tensors(tmp_path / "none")
