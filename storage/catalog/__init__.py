"""The catalogue: an SQLite database of files, videos, labels and runs."""
