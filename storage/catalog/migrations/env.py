"""Alembic's entry: runs the migrations on the connection of `storage.catalog.database`.

For a new migration, change the tables in ``storage/catalog/tables.py``, write the next ``versions/NNNN_name.py`` by
hand (``script.py.mako`` shows its form), and raise ``SCHEMA_REVISION``. A test compares the tables with the migrations.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
