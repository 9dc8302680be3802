"""Owns the command line `artmancer`, and its command that runs a server.

Exit codes: 0 done; 1 the server or the request failed; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import typer

from frontend.cli.console import console, fail_to_launch, read_settings, stop_on_signals
from frontend.cli.edit import edit
from frontend.cli.mask import mask
from frontend.launcher import installation
from frontend.launcher.errors import LaunchError

main = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@main.command()
def serve() -> None:
    """Run the frontend, over a Triton of its own unless ARTMANCER_TRITON_URL names one.

    Everything is set by environment variables ARTMANCER_*; Ctrl-C stops it.
    """
    stop_on_signals()
    settings = read_settings()
    from frontend.serving import running  # builds on the whole server; the clients do without

    try:
        if not settings.triton_url:
            log = installation.log_file(settings.triton_grpc_port)
            console.print(f"Starting Triton and loading the models; its log is {log}")
        with running(settings) as serving:
            console.print(f"ArtMancer is ready: {serving.url} (API: {serving.url}/docs)")
            console.print(f"Triton listens for gRPC on {settings.triton_grpc_urls[0]}")
            serving.wait()
    except LaunchError as error:
        fail_to_launch(error)
    except KeyboardInterrupt:
        console.print("Stopped.")


main.command()(edit)
main.command()(mask)

if __name__ == "__main__":
    main()
