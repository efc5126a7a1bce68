"""OpenAI's CLIP archives (``ViT-B-32.pt``): their tensors, without running the code in them.

    tensors = read_openai(Path("ViT-B-32.pt"))      # {"clip.visual.conv1.weight": ..., ...}

Such an archive is a TorchScript module, so it holds a program, and ``torch.jit.load`` would have torch read and prepare
it. Here the zip file is read by hand: the pickle that describes the module may build tensors, lists and plain objects
without behaviour, and nothing else.
"""

import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from scanonce.storage.errors import EncoderError

_DESCRIPTION = "data.pkl"
_PROGRAM = "constants.pkl"  # what a file of torch.save does not have
_STORAGES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
_MAX_DESCRIPTION_BYTES = 64 << 20
_MAX_DEPTH = 32
_UNREADABLE = (
    zipfile.BadZipFile, pickle.UnpicklingError, OSError, EOFError, KeyError, ValueError, TypeError, IndexError,
    AttributeError, RuntimeError, RecursionError,
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(f"/{_PROGRAM}") for name in archive.namelist())


def read_openai(path: Path) -> dict[str, Tensor]:
    """Read the tensors of an archive, by OpenAI's names with the prefix ``clip.``.

    Raises:
        EncoderError: it is not such an archive, or it is damaged.
    """
    if not is_archive(path):
        raise EncoderError(
            f"{path} is not one of OpenAI's archives, such as ViT-B-32.pt. A checkpoint of CLIP4Clip is converted "
            "without the word openai: scanonce convert SOURCE OUT"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            root = _Description(archive).read()
        tensors = {f"clip.{name}": tensor for name, tensor in _named(root)}
        if not tensors:
            raise pickle.UnpicklingError("it holds no tensors")
    except _UNREADABLE as error:
        raise EncoderError(
            f"{path} cannot be read as one of OpenAI's archives ({type(error).__name__}: {error}). Download it again."
        ) from error
    return tensors


class _Part:
    """A module of the archive: its attributes, without any behaviour."""

    def __init__(self) -> None:
        self.parts: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module without attributes by name")
        self.parts = state


class _Description(pickle.Unpickler):
    """The pickle of an archive, restricted to what such an archive needs."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        names = [name for name in archive.namelist() if name.endswith(f"/{_DESCRIPTION}")]
        if len(names) != 1 or archive.getinfo(names[0]).file_size > _MAX_DESCRIPTION_BYTES:
            raise pickle.UnpicklingError(f"it has no {_DESCRIPTION} of a usual size")
        self._archive = archive
        self._folder = names[0].removesuffix(_DESCRIPTION)
        self._storages: dict[str, Tensor] = {}
        super().__init__(archive.open(names[0]))

    def read(self) -> Any:
        """Return the root module."""
        return self.load()

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global name; every other name is refused."""
        if module.split(".")[0] == "__torch__":
            return _Part
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("collections", "OrderedDict"): dict,
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch.jit._pickle", "build_doublelist"): list,
            ("torch.jit._pickle", "build_boollist"): list,
            ("torch.jit._pickle", "build_tensorlist"): list,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no such archive needs"
            )
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the numbers of a tensor ``[numel]``."""
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        if key not in self._storages:
            self._storages[key] = self._read_storage(str(key), dtype, int(numel))
        return self._storages[key]

    def _read_storage(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        info = self._archive.getinfo(f"{self._folder}data/{key}")
        num_bytes = numel * dtype.itemsize
        # stored as it is: a compressed entry could claim any size
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != num_bytes:
            raise pickle.UnpicklingError(
                f"storage {key} has {info.file_size} bytes, not {num_bytes}"
            )
        if not num_bytes:
            return torch.empty(0, dtype=dtype)
        with self._archive.open(info) as file:
            return torch.frombuffer(bytearray(_read_all(file, num_bytes)), dtype=dtype)


def _read_all(file: IO[bytes], num_bytes: int) -> bytes:
    content = file.read(num_bytes)
    if len(content) != num_bytes:
        raise EOFError("a storage ends early")
    return content


def _rebuild(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
) -> Tensor:
    """Return a tensor of its numbers; torch refuses one that reaches beyond them."""
    if math.prod(size) > max(1, len(storage)):
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return storage.as_strided(tuple(size), tuple(stride), offset).clone()


def _named(part: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module and of its parts, by their names."""
    if depth > _MAX_DEPTH:
        raise RecursionError("its modules lie too deep in each other")
    if not isinstance(part, _Part):
        return
    for name, value in part.parts.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _named(value, f"{prefix}{name}.", depth + 1)
