"""Alembic's entry: runs the migrations on the connection that ``storage.catalog.catalog`` hands in.

A new migration: change the tables in ``storage/catalog.py``, write the next
``versions/NNNN_name.py`` by hand (``script.py.mako`` shows its shape), raise ``SCHEMA_REVISION``. A
test compares the tables with the migrations.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
