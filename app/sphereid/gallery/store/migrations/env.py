"""Alembic's entry: runs in the transaction that `sphereid.gallery.store.schema` hands over."""

from alembic import context

from sphereid.gallery.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()
