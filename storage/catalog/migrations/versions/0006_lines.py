"""Lines: texts with a time, from speech, images and subtitles; and the words of lines and of paths."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_VIDEO = sa.ForeignKey("videos.id", ondelete="CASCADE")
_TRACK = sa.ForeignKey("tracks.id", ondelete="CASCADE")

# As in 0004: a reader takes in the lines of a video whose change is noted.
_NOTE = """
    INSERT INTO video_changes (video_id, number)
    VALUES ({video_id}, (SELECT coalesce(max(number), 0) + 1 FROM video_changes))
    ON CONFLICT (video_id) DO UPDATE SET number = excluded.number;
"""
_WHEN = {
    "tracks_insert": ("INSERT ON tracks", "NEW.video_id"),
    "tracks_delete": ("DELETE ON tracks", "OLD.video_id"),
    "tracks_update": ("UPDATE ON tracks", "NEW.video_id"),
}

# Diacritics are folded, words are not stemmed: a stem is wrong in every language but its own.
_OPTIONS = "content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'"


def upgrade() -> None:
    """Add two tables, the words of lines and of paths, and the triggers that note a change."""
    op.create_table(
        "tracks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("video_id", sa.Integer, _VIDEO, nullable=False, index=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("problem", sa.String),
        sa.Column("embedder", sa.String),
        sa.Column("passages", sa.LargeBinary),
        sa.Column("made_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("video_id", "name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "lines",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("track_id", sa.Integer, _TRACK, nullable=False, index=True),
        sa.Column("start_seconds", sa.Double, nullable=False),
        sa.Column("end_seconds", sa.Double, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("words", sa.String),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("language", sa.String),
        sqlite_autoincrement=True,
    )
    op.execute("CREATE VIEW line_texts AS SELECT id, coalesce(words, text) AS words FROM lines")
    # `storage.catalog.word_index` keeps both up to date
    op.execute(
        f"CREATE VIRTUAL TABLE line_words USING fts5(words, content = 'line_texts', {_OPTIONS})"
    )
    op.execute(f"CREATE VIRTUAL TABLE file_words USING fts5(path, content = 'files', {_OPTIONS})")
    op.execute("INSERT INTO file_words (file_words) VALUES ('rebuild')")
    for name, (event, video_id) in _WHEN.items():
        note = _NOTE.format(video_id=video_id)
        op.execute(f"CREATE TRIGGER {name}_is_noted AFTER {event} BEGIN {note} END")
