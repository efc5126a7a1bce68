"""`scanonce config`: the settings file, generated from the settings models, which alone explain the settings."""

import json
from textwrap import wrap
from typing import TYPE_CHECKING, Literal, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_WIDTH = 120
_HEADER = (
    "Every setting of Scanonce with its default; `scanonce config` prints this file. Name a copy by --config or in the "
    "environment variable SCANONCE_CONFIG. Unknown keys are refused. Settings marked (index) belong to an index: they "
    "decide for new indexes, and an existing index keeps its own until `scanonce reindex`."
)


def config() -> None:
    """Print a settings file with every setting, its default and its meaning."""
    print(settings_file(), end="")


def settings_file() -> str:
    """Return the text of a settings file in which every setting has its default."""
    from scanonce.ui.config import Config

    return "\n".join([*_comment(_HEADER), "", *_lines(Config())]) + "\n"


def _lines(settings: "BaseModel") -> list[str]:
    from pydantic import BaseModel

    lines: list[str] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            lines += ["", f"[{name}]", *_lines(value)]
        else:
            lines += _comment(f"{field.description} {_allowed(field)}".rstrip())
            lines += _assignment(name, value)
    return lines


def _comment(text: str) -> list[str]:
    return wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _allowed(field: "FieldInfo") -> str:
    """The bounds of a number, or the values of a choice that the description does not name; "" if there are none."""
    if get_origin(field.annotation) is Literal:
        values = [f'"{value}"' for value in get_args(field.annotation)]
        if all(value in str(field.description) for value in values):
            return ""
        return f"Allowed: {', '.join(values)}."
    bounds = {
        name: getattr(each, name)
        for each in field.metadata
        for name in ("ge", "gt", "le")
        if hasattr(each, name)
    }
    if not bounds:
        return ""
    low = f"above {bounds['gt']}" if "gt" in bounds else f"{bounds['ge']:,}"
    if "le" in bounds:
        return f"Allowed: {low} to {bounds['le']:,}."
    return f"Allowed: {low}." if "gt" in bounds else f"Allowed: {low} or more."


def _assignment(name: str, value: object) -> list[str]:
    """A TOML assignment; a long list has lines of its own."""
    if isinstance(value, tuple):
        items = [_toml(each) for each in value]
        line = f"{name} = [{', '.join(items)}]"
        if len(line) > _WIDTH:
            indented = {"initial_indent": "  ", "subsequent_indent": "  "}
            return [f"{name} = [", *wrap(f"{', '.join(items)},", _WIDTH, **indented), "]"]  # type: ignore[arg-type]
        return [line]
    return [f"{name} = {_toml(value)}"]


def _toml(value: object) -> str:
    """A TOML value; numbers from ten thousand on have underscores."""
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:_}" if isinstance(value, int) and value >= 10_000 else str(value)
