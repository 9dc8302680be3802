"""Owns the command `artmancer serve`."""

from __future__ import annotations

from frontend.cli.console import console
from frontend.streams import forgive_lost_output


def serve() -> None:
    """Run the server.

    It starts a Triton of its own unless ARTMANCER_TRITON_URL names one. Everything is set by
    environment variables ARTMANCER_*, which docs/settings.md explains. Ctrl-C or SIGTERM stops it,
    with exit code 0.
    """
    forgive_lost_output()
    # Here, because they build on the whole server, which the clients do without.
    from frontend.cli.launching import fail_to_launch, read_settings
    from frontend.launcher import installation
    from frontend.launcher.errors import LaunchError
    from frontend.signals import stop_on_signals

    settings = read_settings()
    from frontend.serving import running  # after the settings, whose mistakes show at once

    def launching() -> None:
        log = installation.log_file(settings.triton_grpc_port)
        console.print(f"Starting Triton and loading the models; its log is {log}")

    try:
        stop_on_signals()
        with running(settings, launching) as serving:
            # Of a Triton that was not started here nobody knows yet whether it answers.
            if settings.serves and settings.launches_triton:
                console.print(f"ArtMancer is ready: {serving.url} (API: {serving.url}/docs)")
            elif settings.serves:
                console.print(f"ArtMancer serves: {serving.url} (API: {serving.url}/docs)")
                console.print(f"Whether it is ready: {serving.url}/readyz")
            else:
                console.print(f"ArtMancer dispatches; how it stands: {serving.url}/readyz")
            urls = ", ".join(settings.triton_grpc_urls)
            if settings.launches_triton:
                console.print(f"Triton listens for gRPC on {urls}")
            elif urls:
                console.print(f"It asks Triton at {urls}")
            serving.wait()
    except LaunchError as error:
        fail_to_launch(error)
    except KeyboardInterrupt:
        console.print("Stopped.")
