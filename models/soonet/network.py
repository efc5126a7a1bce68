"""SOONet: one scan of a video gives vectors of all its anchors (arXiv 2303.08345), weight-compatible.

    model = read_soonet(Path("SOONet_MAD_VIT-B-32_4Scale_10C.pth"))
    scanned = model.scan(frames)                        # [L, 512] raw features at 5 fps; once, at indexing
    scores = score_anchors(model.query_vector(text), scanned.vectors)                  # models.soonet_query

Nothing here looks at video and query together but `Soonet.regress`: both stages of the ranking are inner products of
something of the video with something of the query. With mean pooling they are one: a vector of ``2 * hidden_dim``
numbers for each anchor holds all that the ranking needs.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from scanonce.models.runtime import use_one_thread
from scanonce.models.soonet.grid import AnchorGrid
from scanonce.models.soonet.parts import ContentEncoder, Place, Regressor, VideoEncoder
from scanonce.storage.errors import LocaliserError

_PROJECTION_FRAMES = (
    5120  # frames that content attention looks at together: 10 MB of each projection
)

# How far the edge of a piece is seen, in windows: in the shifted block of the finest scale half a window of tokens
# misses its neighbours. These are a quarter of a window in the next scale, whose unshifted block spreads that over
# the window and whose shifted block over half a window more: 1.5. That again is 0.75 windows of the scale after it,
# then 1, then 1.5, and so on. Two windows of the coarsest scale hold it, on either side.
_OVERLAP_WINDOWS = 2


@dataclass(frozen=True, slots=True)
class SoonetConfig:
    """What decides the shapes and the arithmetic; the defaults are the published model for MAD."""

    hidden_dim: int = 512
    snippet_length: int = 10
    """Frames of an anchor of the finest scale."""
    num_scales: int = 4
    fps: float = 5.0
    """Frames per second the model was trained at."""
    window: int = 64
    """Tokens that attend to each other in the video encoder, an even number."""
    num_heads: int = 8
    stage2_pool: Literal["mean", "max"] = "mean"
    """How the scores of an anchor's frames become one. ``max`` cannot be stored as a vector of the anchor: the second
    stage is then computed for the candidates of each query (`Soonet.contents`, 2.4 MFLOP a frame)."""
    legacy_mask: bool = False
    """Mask windows as the published code does, with its defect, instead of as it was meant; see `_legacy_labels`."""
    max_positions: int = 400
    """Position vectors there are: frames of the longest anchor at most."""
    frame_dim: int = 512
    """Width of frame features; where it is not ``hidden_dim`` a linear layer comes first."""
    text_dim: int = 512
    """Width of text features; likewise."""
    text_features: Literal["states", "joint"] = "states"
    """``states``: the text tower's last hidden state without its projection, what published weights want; ``joint``:
    its vector in the space it shares with pictures."""
    encoder_fingerprint: str | None = None
    """Encoder whose features it was trained on; None: any of matching widths."""
    clip_weight: float = 0.0
    """How much of the cosine between the query and the frames of the span found is added to its score."""
    curve_tiou: float = 0.0
    """A regressed span takes its edges from the curve of frame scores where that has a span of at least this tIoU
    with it; 0: never, as published."""

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "num_heads", "max_positions", "frame_dim", "text_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                f"hidden_dim must be even and a multiple of num_heads; got {self.hidden_dim}, {self.num_heads}"
            )
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be even and 2 or more; got {self.window}")
        if self.stage2_pool not in ("mean", "max"):
            raise ValueError(f'stage2_pool is "mean" or "max"; got {self.stage2_pool!r}')
        if self.text_features not in ("states", "joint"):
            raise ValueError(f'text_features is "states" or "joint"; got {self.text_features!r}')
        if self.grid.lengths[-1] > self.max_positions:
            raise ValueError(
                f"anchors of {self.grid.lengths[-1]} frames need as many positions; got {self.max_positions}"
            )

    @property
    def grid(self) -> AnchorGrid:
        """The anchors it scores."""
        return AnchorGrid(self.fps, self.snippet_length, self.num_scales)

    @property
    def vector_dim(self) -> int:
        """Width of the vectors `Soonet.scan` gives."""
        return self.hidden_dim * (2 if self.stage2_pool == "mean" else 1)


@dataclass(frozen=True, slots=True, eq=False)
class Scanned:
    """What is stored of a video: all the ranking needs, and the length that gives back the raw context."""

    vectors: NDArray[np.floating]
    """``[num_anchors, vector_dim]``, rows as in `AnchorGrid`: ``unit(context)`` and, with mean pooling, the mean of the
    ``unit(content)`` of the frames."""
    norms: NDArray[np.float32]
    """``[num_anchors]``: ``context = unit(context) * norm``, so no second copy of it is kept."""


class Soonet(nn.Module):
    """The network. State-dict names and shapes are those of the published checkpoint."""

    def __init__(self, config: SoonetConfig | None = None) -> None:
        """New weights, ready to be trained or overwritten."""
        super().__init__()
        self.config = config = config or SoonetConfig()
        dim = config.hidden_dim
        self.video_encoder = VideoEncoder(
            config.grid,
            dim=dim,
            window=config.window,
            num_heads=config.num_heads,
            legacy_mask=config.legacy_mask,
        )
        self.q2v_stage1 = _Head(dim)
        self.v2q_stage1 = _Head(dim)
        self.q2v_stage2 = _Stage2(config)
        self.v2q_stage2 = _Head(dim)
        self.regressor = Regressor(dim)
        # no bias: the zero vectors after the end of a video stay zero
        self.input_frames = (
            nn.Identity()
            if config.frame_dim == dim
            else nn.Linear(config.frame_dim, dim, bias=False)
        )
        self.input_text = (
            nn.Identity() if config.text_dim == dim else nn.Linear(config.text_dim, dim)
        )

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.regressor.fc_q.weight.device

    @property
    def content_encoder(self) -> ContentEncoder:
        """The part that `contents` is made by."""
        return self.q2v_stage2.encoder

    def contexts(self, frames: Tensor, num_frames: Tensor | None = None) -> list[Tensor]:
        """Context of every anchor.

        Args:
            frames: ``[B, L, frame_dim]`` raw features; padded with zeros to whole anchors of the coarsest scale here.
            num_frames: ``[B]`` frames that are no padding, all where None. The legacy mask does not look at it.

        Returns:
            By scale ``[B, N_i, hidden_dim]``, with ``N_i = ceil(L / longest) * longest / length_i``: anchors past the
            end of the video are among them and mean nothing.
        """
        longest = self.config.grid.lengths[-1]
        total = frames.shape[1]
        if num_frames is None:
            num_frames = torch.full((len(frames),), total, device=frames.device)
        padded = F.pad(self.input_frames(frames), (0, 0, 0, -total % longest))
        levels: list[Tensor] = self.video_encoder(padded, Place(0, padded.shape[1], num_frames))
        return levels

    def contents(self, frames: Tensor) -> Tensor:
        """What the frames of anchors say among each other: ``[K, a, frame_dim]`` to ``[K, a, hidden_dim]``."""
        hidden = self.input_frames(frames)
        encoder = self.content_encoder
        contents: Tensor = encoder(hidden, encoder.project(hidden))
        return contents

    def query_vectors(self, texts: Tensor) -> Tensor:
        """``[M, text_dim]`` raw text features to what anchors are compared with: two unit vectors side by side.

        Returns:
            ``[M, 2 * hidden_dim]``; the first half is for contexts, the second for contents.
        """
        query = self.input_text(texts)
        halves = (self.q2v_stage1.fc(query), self.q2v_stage2.qfc(query))
        return torch.cat([F.normalize(half, dim=-1) for half in halves], dim=-1)

    def regress(self, texts: Tensor, contexts: Tensor, contents: Tensor) -> Tensor:
        """Where the moment begins and ends, as seen from anchors of one scale.

        Args:
            texts: ``[text_dim]`` for all, or ``[K, text_dim]``, raw.
            contexts: ``[K, hidden_dim]``, raw.
            contents: ``[K, a, hidden_dim]`` of `contents`.

        Returns:
            ``[K, 2]``: by how many lengths of the anchor its start and its end move.
        """
        offsets: Tensor = self.regressor(self.input_text(texts), contexts, contents)
        return offsets

    def query_vector(self, text: ArrayLike) -> NDArray[np.float32]:
        """`query_vectors` of one text feature ``[text_dim]``: ``[2 * hidden_dim]`` float32."""
        vector: NDArray[np.float32] = self.query_vectors_of(np.asarray(text)[None])[0]
        return vector

    @torch.inference_mode()
    def query_vectors_of(self, texts: ArrayLike) -> NDArray[np.float32]:
        """`query_vectors` of text features ``[M, text_dim]``: ``[M, 2 * hidden_dim]`` float32."""
        use_one_thread()
        tensor = torch.as_tensor(np.asarray(texts, np.float32), device=self.device)
        vectors: NDArray[np.float32] = self.query_vectors(tensor).cpu().numpy()
        return vectors

    @torch.inference_mode()
    def scan(
        self,
        frames: NDArray[np.floating],
        *,
        dtype: type[np.float16] | type[np.float32] = np.float16,
        chunk_windows: int = 8,
    ) -> Scanned:
        """All that a query needs to know of a video: see `Scanned`.

        A long video is worked on in pieces, with the same result: what lies further away than the overlap cannot be
        seen through the windows. At the published size 8 windows are 2.3 hours; videos that need no cut are not cut.

        Args:
            frames: ``[L, frame_dim]`` raw features on the grid of the config, any float type; may be memory-mapped.
            dtype: of the vectors: float16 for storing.
            chunk_windows: length of a piece, in windows of the coarsest scale.
        """
        use_one_thread()
        config = self.config
        dim, lengths = config.hidden_dim, config.grid.lengths
        counts = [-(-len(frames) // length) for length in lengths]
        vectors = [np.zeros((count, config.vector_dim), dtype) for count in counts]
        norms = [np.zeros(count, np.float32) for count in counts]
        for first, contexts in self._context_pieces(frames, chunk_windows):
            for scale, (length, piece) in enumerate(zip(lengths, contexts, strict=True)):
                start = first // length
                real = piece[: counts[scale] - start]
                norm = real.norm(dim=-1)
                norms[scale][start : start + len(real)] = norm.cpu().numpy()
                units = real / norm.clamp_min(1e-12)[:, None]
                vectors[scale][start : start + len(real), :dim] = units.cpu().numpy()
        if config.stage2_pool == "mean":
            for first, contents in self._content_pieces(frames):
                for scale, (length, piece) in enumerate(zip(lengths, contents, strict=True)):
                    start = first // length
                    real = piece[: counts[scale] - start]
                    vectors[scale][start : start + len(real), dim:] = real.cpu().numpy()
        return Scanned(np.concatenate(vectors), np.concatenate(norms))

    def _context_pieces(
        self, frames: NDArray[np.floating], chunk_windows: int
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """``(first frame, [N_i, D] by scale)`` of the pieces of a video.

        A piece begins and ends where windows of all scales do, and is computed with an overlap on either side, which
        is thrown away; see `_OVERLAP_WINDOWS`.
        """
        config, lengths = self.config, self.config.grid.lengths
        step = config.window * lengths[-1]  # frames
        overlap = _OVERLAP_WINDOWS * step
        total = len(frames)
        padded = total + -total % lengths[-1]
        num_frames = torch.tensor([total], device=self.device)
        core_length = max(1, chunk_windows) * step
        if padded <= core_length + 2 * overlap:
            core_length = max(1, padded)
        for core in range(0, padded, core_length):
            begin, end = max(0, core - overlap), min(padded, core + core_length + overlap)
            piece = self._hidden(frames, begin, end)[None]
            pyramid = self.video_encoder(piece, Place(begin, padded, num_frames))
            yield (
                core,
                [
                    level[0, (core - begin) // length : (core + core_length - begin) // length]
                    for level, length in zip(pyramid, lengths, strict=True)
                ],
            )

    def _content_pieces(self, frames: NDArray[np.floating]) -> Iterator[tuple[int, list[Tensor]]]:
        """``(first frame, mean unit content [N_i, D] by scale)``; projections of frames are shared by the scales."""
        lengths = self.config.grid.lengths
        step = max(1, _PROJECTION_FRAMES // lengths[-1]) * lengths[-1]
        for start in range(0, len(frames), step):
            end = min(start + step, len(frames) + -len(frames) % lengths[-1])
            hidden = self._hidden(frames, start, end)  # [F, D]
            projected = self.content_encoder.project(hidden)  # [F, 3D]
            means = []
            for length in lengths:
                contents = self.content_encoder(
                    hidden.reshape(-1, length, hidden.shape[1]),  # [K, a, D]
                    projected.reshape(-1, length, projected.shape[1]),  # [K, a, 3D]
                )
                means.append(F.normalize(contents, dim=-1).mean(dim=1))
            yield start, means

    def _hidden(self, frames: NDArray[np.floating], first: int, last: int) -> Tensor:
        """``[last - first, D]`` of frames in the model's width, zero where there are none."""
        piece = np.zeros((last - first, self.config.frame_dim), np.float32)
        stored = frames[first:last]
        piece[: len(stored)] = stored
        hidden: Tensor = self.input_frames(torch.from_numpy(piece).to(self.device))
        return hidden


class _Head(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, dim)


class _Stage2(nn.Module):
    def __init__(self, config: SoonetConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.qfc = nn.Linear(dim, dim)
        self.encoder = ContentEncoder(
            dim, num_heads=config.num_heads, max_positions=config.max_positions
        )


# ------------------------------------------------ checkpoints

PUBLISHED = SoonetConfig(stage2_pool="max", legacy_mask=True)
"""The model for MAD that the paper's authors give away, as the code that loads it computes."""

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"


def read_soonet(path: Path, config: SoonetConfig = PUBLISHED) -> Soonet:
    """A model from disk, in evaluation mode, on the CPU.

    Args:
        path: a folder that `write_soonet` wrote, or the published ``.pth`` file.
        config: of the ``.pth`` file, which has none of its own; not looked at for a folder.

    Raises:
        LocaliserError: there is no such checkpoint, it cannot be read, or its tensors are not those of its config.
    """
    if path.is_dir():
        config = _read_config(path / _CONFIG)
        tensors = _read_tensors(path / _WEIGHTS)
    else:
        tensors = _read_tensors(path)
    with torch.device("meta"):  # shapes without numbers
        model = Soonet(config)
    _check_tensors(path, model.state_dict(), tensors)
    floats = {name: _as_float(tensor) for name, tensor in tensors.items()}
    model.load_state_dict(floats, assign=True)
    return model.eval()


def write_soonet(model: Soonet, folder: Path) -> None:
    """Writes ``config.json`` and ``model.safetensors``; a model in half precision makes a file of half the size."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    unfinished = folder / f"{_WEIGHTS}.part"
    unfinished.write_bytes(save(tensors))
    unfinished.replace(folder / _WEIGHTS)
    text = json.dumps(asdict(model.config), indent=2) + "\n"
    (folder / _CONFIG).write_text(text, encoding="utf-8")


def fingerprint(path: Path) -> str:
    """Hex digest of the configuration and weights at a path that `read_soonet` takes: equal means the same scores."""
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            digest.update(json.dumps(asdict(_read_config(path / _CONFIG))).encode())
            path = path / _WEIGHTS
        else:
            digest.update(json.dumps(asdict(PUBLISHED)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise LocaliserError(
            f"{path} cannot be read ({error.strerror}). Give a folder with {_CONFIG} and {_WEIGHTS}, "
            "or the published .pth file."
        ) from error
    return digest.hexdigest()


def _read_config(path: Path) -> SoonetConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return SoonetConfig(**values)
    except OSError as error:
        raise LocaliserError(
            f"{path.parent} is not a localiser: {_CONFIG} cannot be read ({error.strerror}). "
            f"Give a folder with {_CONFIG} and {_WEIGHTS}, or the published .pth file."
        ) from error
    except (
        ValueError,
        TypeError,
    ) as error:  # not JSON, an unknown key, a value that is not allowed
        raise LocaliserError(
            f"{path} is not the configuration of a localiser: {error}. Allowed keys: "
            f"{', '.join(field.name for field in fields(SoonetConfig))}."
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # of pickle, zip, safetensors, the system: there is no common ancestor
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LocaliserError(
            f"{path} cannot be read as the weights of a localiser ({reason}). Give a folder with {_CONFIG} and "
            f"{_WEIGHTS}, or the published .pth file; if it was downloaded, get it again."
        ) from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise LocaliserError(
            f'{path} holds no weights under the key "model", as SOONet\'s published file does. '
            "Check that it is SOONet's checkpoint and not another model's."
        )
    return tensors


def _check_tensors(path: Path, wanted: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Names and shapes must be those of the configuration, all of them and no others."""
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - given.keys())]
    problems += [f"{name} is not known" for name in sorted(given.keys() - wanted.keys())]
    problems += [
        f"{name} is {list(given[name].shape)}, not {list(wanted[name].shape)}"
        for name in sorted(wanted.keys() & given.keys())
        if given[name].shape != wanted[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise LocaliserError(
            f"the tensors of {path} are not those of its configuration: {'; '.join(problems[:3])}{more}. "
            "Use the configuration it was trained with."
        )


def _as_float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
