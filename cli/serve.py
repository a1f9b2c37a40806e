"""`oxcart serve`: answer observations with actions, over HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from oxcart.cli.options import LocalPath, need, need_train
from oxcart.cli.rollout import acting_options


@click.command()
@click.argument("run", type=LocalPath(file_okay=False))
@click.option("--host", default="127.0.0.1", help="Address to listen on; whoever reaches it may ask.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="Port; 0 takes a free one.")
@acting_options
def serve(run: Path, host: str, port: int, execute: int | None, ensemble: float | None, device: str) -> None:
    """Answer observations with actions of the policy of RUN, over HTTP, until interrupted.

    POST /act takes images, state and instruction as msgpack, and answers with an action.
    docs/policy.md has a client of twenty lines. There is no password, so only programs of
    this machine are answered unless --host says otherwise.

    \b
    Example:
      oxcart serve runs/policy --port 8765
    """
    need_train()
    need("serve", "msgpack")
    from oxcart.train.policy.controller import load_policy
    from oxcart.train.rollout.serve import PolicyServer

    policy = load_policy(run, device=device, execute=execute, ensemble=ensemble)
    with PolicyServer(policy, host, port) as server:
        spec = server.spec
        click.echo(
            f"serving {run} on http://{host}:{server.server_port}: {len(spec.action)} values, "
            f"{spec.control_rate:g} times a second",
            err=True,
        )
        server.serve_forever()
