"""Labels: their names, and that they stay with the content of a file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.label_names import folded, normal_label
from scanonce.storage.errors import QueryError
from tests.catalogs import LIBRARY, record, running, stamp

# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("holiday", "holiday"),
        ("  two   words ", "two words"),
        ("a\u00a0b", "a b"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("x" * 100, "x" * 100),
        ("re\u200bd\ufeff", "red"),
        ("\u202ered\u202c", "red"),
        ("\u0646\u06cc\u200c\u0645", "\u0646\u06cc\u200c\u0645"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
        ("'; DROP TABLE labels; --", "'; DROP TABLE labels; --"),
    ],
)
def test_a_label_is_stored_without_extra_spaces_and_composed(text: str, label: str) -> None:
    assert normal_label(text) == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\u3000",
        "\u200b",
        "\u202e",
        "x" * 101,
        "a\nb",
        "\x00",
        "a\x7f",
        "\ud800",
        "a\u2028b",
        "\t",
    ],
)
def test_a_text_that_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="label"):
        normal_label(text)


@given(st.text())
def test_a_normal_label_is_normal_and_can_be_stored(text: str) -> None:
    try:
        label = normal_label(text)
    except QueryError:
        return
    assert normal_label(label) == label
    assert folded(f" {label} ") == folded(label)
    label.encode()


# ---------------------------------------------------------------- on videos


def test_labels_are_added_counted_and_taken_away(catalog: Catalog) -> None:
    one, two, three = (record(catalog, uid) for uid in "abc")
    assert catalog.labels.add([one, two, 999], ["Holiday", "work"]) == 4
    assert catalog.labels.add([two, three], [" holiday"]) == 1
    assert catalog.labels.counts() == {"Holiday": 3, "work": 2}
    assert catalog.labels.of([three, one]) == {one: ("Holiday", "work"), three: ("Holiday",)}
    assert catalog.labels.remove([one, two], ["WORK", "never there"]) == 2
    assert catalog.labels.counts() == {"Holiday": 3}
    assert catalog.labels.add([], ["x"]) == catalog.labels.remove([one], []) == 0


def test_a_label_that_is_no_longer_in_use_may_come_back_in_another_spelling(
    catalog: Catalog,
) -> None:
    video = record(catalog, "a")
    catalog.labels.add([video], ["STRASSE"])
    catalog.labels.add([video], ["Straße"])
    assert catalog.labels.counts() == {"STRASSE": 1}
    catalog.labels.remove([video], ["straße"])
    catalog.labels.add([video], ["Straße"])
    assert catalog.labels.of([video]) == {video: ("Straße",)}


def test_nothing_is_added_if_one_of_the_labels_is_refused(catalog: Catalog) -> None:
    video = record(catalog, "a")
    with pytest.raises(QueryError):
        catalog.labels.add([video], ["good", "b\nad"])
    assert catalog.labels.counts() == {}


def test_labels_go_to_the_scan_that_replaces_another(catalog: Catalog) -> None:
    old = record(catalog, "a")
    catalog.labels.add([old], ["holiday"])
    new = record(catalog, "a-2", "a.mp4", replaces=old)
    assert catalog.labels.of([old, new]) == {new: ("holiday",)}
    taken = record(catalog, "b")
    catalog.labels.add([taken], ["holiday", "work"])
    assert record(catalog, "b", replaces=new) == taken  # it has one of the labels already
    assert catalog.labels.of([new, taken]) == {taken: ("holiday", "work")}


def test_labels_stay_if_a_file_moves_and_go_with_the_last_one(catalog: Catalog) -> None:
    video = record(catalog, "a")
    catalog.labels.add([video], ["holiday"])
    catalog.attach_file(video, stamp("moved.mp4"))
    assert catalog.forget_files([LIBRARY / "a.mp4"]) == []
    assert catalog.labels.counts() == {"holiday": 1}
    catalog.forget_files([LIBRARY / "moved.mp4"])
    assert catalog.labels.counts() == {}
    assert record(catalog, "a") != video
    assert catalog.labels.counts() == {}


def test_labels_go_with_a_library_that_is_forgotten(catalog: Catalog) -> None:
    catalog.labels.add([record(catalog, "a")], ["holiday"])
    catalog.forget_libraries([LIBRARY])
    assert catalog.labels.counts() == {}


def test_a_new_index_begins_with_the_labels_and_takes_over_later_ones(
    catalog: Catalog, tmp_path: Path
) -> None:
    kept, again, gone = (record(catalog, uid) for uid in "abc")
    catalog.labels.add([kept, again, gone], ["before"])
    catalog.copy_to(tmp_path / "staging.sqlite")
    with Catalog.open(tmp_path / "staging.sqlite") as staging:
        staging.mark_unscanned("not yet")
        assert staging.labels.of([kept]) == {kept: ("before",)}
        record(staging, "a")
        replaced = record(staging, "b-2", "b.mp4", replaces=again)
        staging.forget_files([LIBRARY / "c.mp4"])
        new = record(staging, "d")
        catalog.labels.add([kept, again], ["After"])  # meanwhile
        catalog.labels.remove([kept], ["before"])
        other = record(catalog, "e")
        catalog.labels.add([record(catalog, "d"), other], ["late"])
        staging.labels.take_over(catalog.labels)
        assert staging.labels.of([kept, replaced, gone, new]) == {
            kept: ("After",),
            replaced: ("After", "before"),
            new: ("late",),
        }


def test_labelling_goes_on_while_a_run_writes(catalog: Catalog) -> None:
    """Both do many short writes; nothing is lost, and neither gives up."""
    labelled = [record(catalog, f"first {number}") for number in range(20)]

    def run() -> None:
        with Catalog.open(catalog.path) as writer:
            for number in range(40):
                record(writer, f"content {number}")

    with running(run):
        for video in labelled:
            catalog.labels.add([video], ["mine"])
    assert catalog.labels.counts() == {"mine": 20}
    assert len(catalog.live_video_ids()) == 60
