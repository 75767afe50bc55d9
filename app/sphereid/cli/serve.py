"""`sphereid serve`."""

import gc
import logging
import os
from typing import Annotated

import typer

from sphereid.inference.malloc import settle_heaps
from sphereid.settings import Settings


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (HOST, SPHEREID_HOST).", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on (PORT, SPHEREID_PORT).", show_default="8000")
    ] = None,
) -> None:
    """Serve the HTTP API.

    Every setting comes from the environment (SPHEREID_...); the README lists them. Listening on anything but
    loopback wants SPHEREID_API_KEYS.
    """
    gc.disable()  # the modules make no garbage, and looking for some takes an eighth of the start
    import uvicorn

    from sphereid.api import logs
    from sphereid.api.application import create_app

    gc.freeze()
    gc.enable()
    settle_heaps()
    given = {"host": host, "port": port}
    settings = Settings().model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    settings.refuse_open_port()
    os.umask(0o077)  # whatever is written from here on may hold faces
    logs.configure(settings.log_format, settings.log_level)
    app = create_app(settings)
    # What stops the start is said in one line by the caller; the server would print its stack as well.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: not record.getMessage().startswith("Traceback")
    )
    # Beside threads that compute, uvloop loses more than it gains: each of its callbacks takes the
    # interpreter's lock by itself, asyncio's loop takes it once for all that are ready.
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown_grace,
        )
    )
    try:
        server.run()
    finally:
        failure: Exception | None = getattr(app.state, "failure", None)
        if failure is not None:
            raise failure from None
