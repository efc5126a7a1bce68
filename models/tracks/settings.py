"""Settings of the tracks: speech, text in the image and subtitles."""

from pydantic import BaseModel, ConfigDict, Field

from scanonce.storage.records import MadeTrack


class TrackSettings(BaseModel):
    """The ``[tracks]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    make: tuple[MadeTrack, ...] = Field(
        default=(),
        description=(
            "What `scanonce index` and `watch` read of new videos after their images are searchable: "
            '"subtitle" (text inside the file and files such as film.srt next to it), "said" (speech; needs the extra '
            'speech or offline), "written" (text in the image; needs the extra ocr or offline). `scanonce tracks add` '
            "does so for an index that is there."
        ),
    )
    speech_model: str = Field(
        default="auto",
        description=(
            'Model that reads speech: "auto" (Whisper base if it was downloaded before, else the tiny.en of the extra '
            'offline, else base from the hub), a size such as "small" or "large-v3", a hub id, or a folder.'
        ),
    )
    audio_track: int = Field(
        default=0,
        ge=0,
        le=100,
        description=(
            "Audio track that is read. 0: the first in which somebody speaks; 1: the main one; 2: the next, and so on."
        ),
    )
    written_fps: float = Field(
        default=2.0,
        gt=0,
        le=10,
        description="Frames per second that are compared to find text that has changed.",
    )
    text_model: str = Field(
        default="auto",
        description=(
            'Model by which lines are found that say the same in other words: "auto" (all-MiniLM-L6-v2 of the extra '
            'offline, or of the hub if it was downloaded before), "off", a hub id, or a folder.'
        ),
    )
