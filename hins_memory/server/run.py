"""Runs the application under uvicorn until it is told to stop."""

from __future__ import annotations

import uvicorn

from hins_memory.config import Settings
from hins_memory.errors import ConfigError
from hins_memory.registry.onnx_exports import Engine
from hins_memory.server.app import create_app
from hins_memory.server.middleware import is_loopback
from hins_memory.server.page.settings import PageSettings
from hins_memory.server.settings import ServeSettings, keys_from_environment

__all__ = ["run_server"]

# Requests that are being answered when the server is told to stop get so long, in seconds.
_GRACE = 30


def run_server(
    settings: Settings, host: str, port: int, page: PageSettings | None = None, engine: Engine = "auto"
) -> None:
    """Serve a project until SIGTERM or SIGINT; what is being answered then is answered.

    Args:
        settings: the project.
        host: the address to bind to.
        port: the port; 0 lets the system choose.
        page: what the page may show and do; None stands for the defaults.
        engine: what embeds; see `OnnxExports.load`.

    Raises:
        ConfigError: the address can be reached from elsewhere, and there is no key.
    """
    keys = keys_from_environment()
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and there is no key.",
            "Set HINS_API_KEY (several keys are separated by commas), or bind to 127.0.0.1.",
        )
    app = create_app(settings, ServeSettings(keys=keys, page=page or PageSettings(), engine=engine))
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    uvicorn.Server(config).run()
