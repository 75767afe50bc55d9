"""Alembic's entry: runs on the connection that `app.gallery.schema` hands over, in its transaction."""

from alembic import context

from app.gallery.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()
