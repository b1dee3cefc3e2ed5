"""The command `python -m albert_jax.serve`: answers over HTTP."""

import argparse
import os
import socket
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields

from albert_jax.checkpoints.read import AVERAGE
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.predict.load import load
from albert_jax.predict.warm_up import warm_up

_LOOPBACK = ("127.0.0.1", "localhost")
_LAST_PORT = 65535
_HELP = {
    "max_batch": "texts computed together",
    "max_wait_ms": "milliseconds that the first request of a batch waits for others",
    "max_waiting": "requests that may wait; more get 503",
    "max_bytes": "bytes of a request; longer ones get 413",
    "max_texts": "texts of a request",
    "timeout": "seconds until a request gets 504",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command until it is stopped, and returns its exit code."""
    try:
        import uvicorn

        from albert_jax.serve.app import Limits, Service
    except ImportError:
        return fail(ValueError("serve needs more packages: pip install 'albert_jax[serve]'"))
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.serve",
        description="Answers over HTTP: / is a page to try the model on, /health says what it "
        "can do, /metrics is for Prometheus.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="It has no passwords and no encryption; beyond this machine, put it behind a "
        "server that has.",
    )
    parser.add_argument("--checkpoint", required=True, help="anything that albert_jax.load reads")
    parser.add_argument("--average", type=int, default=1, help=AVERAGE)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="the port; 0 takes a free one")
    for field in fields(Limits):
        parser.add_argument(
            f"--{field.name}",
            type=type(field.default),
            default=field.default,
            help=_HELP[field.name],
        )
    args = parser.parse_args(argv)
    try:
        limits = Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)})
        with _listening(args.host, args.port) as listener:
            model = load(args.checkpoint, average=args.average)
            service = Service(model, limits)
            warm_up(model, max(limits.max_batch, limits.max_texts))
            # Answers say how many texts were cut.
            warnings.filterwarnings("ignore", message=".* texts were cut")
            hosts = _LOOPBACK if args.host in _LOOPBACK else ("*",)
            config = uvicorn.Config(
                service.app(hosts),
                access_log=False,
                log_level="warning",
                limit_concurrency=2 * limits.max_waiting + 64,
                timeout_graceful_shutdown=int(limits.timeout) + 1,
            )
            names = ", ".join(f"/{name}" for name in service.routes)
            host, port = listener.getsockname()[:2]
            print(f"serving {args.checkpoint} on http://{host}:{port}: {names}", flush=True)
            # On SIGTERM or Ctrl-C, requests that have begun are answered.
            uvicorn.Server(config).run([listener])
    except USER_ERRORS as error:
        return fail(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


def _listening(host: str, port: int) -> socket.socket:
    """Returns a socket that listens: before anything is loaded, so that a port in use is told.

    Raises:
      ValueError: if it cannot.
    """
    if not host or not 0 <= port <= _LAST_PORT:
        raise ValueError(
            f"--host={host!r} --port={port}: give an address, and a port up to {_LAST_PORT}"
        )
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        number = error.errno  # none, or negative, where the address has no meaning
        reason = (os.strerror(number) if number and number > 0 else str(error)).lower()
        raise ValueError(
            f"--host={host} --port={port}: {reason}; choose another, or --port 0 for a free one"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
