"""Options that say how to read a source, and the configuration that they make."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from oxcart.cli.options import PathOrUrl, options, quiet_option
from oxcart.cli.video import video_config, video_options
from oxcart.manifests.columns import KINDS
from oxcart.manifests.roles import ROLES
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError

if TYPE_CHECKING:
    from oxcart.compile.sources.base import SourceConfig

source_options = options(
    click.option(
        "--environment",
        metavar="FIELD[~REGEX]|=NAME",
        help="Feature that names the environment; REGEX captures the name in a longer text. Of LeRobot a "
        "column of the steps or of the table of episodes; of HDF5 an attribute, or file for the name of the "
        "file. =NAME says that all of it is one environment.",
    ),
    click.option(
        "--catalog",
        metavar="NAME",
        help="For LeRobot: repo id of a port that the catalog knows, or the dataset that it is a port of; "
        "none for none.  [default: OWNER/NAME at the end of SOURCE, if it is known]",
    ),
    click.option(
        "--environment-table",
        type=PathOrUrl(),
        metavar="FILE",
        help="Environments from a file: Parquet or CSV with episode_index (of LeRobot) or key, environment "
        "and, if known, session. Or, for a LeRobot port of an RLDS dataset, the census of that, from scan "
        "--parquet: episodes are found by their steps and numbers.",
    ),
    click.option(
        "--instruction",
        multiple=True,
        metavar="FIELD",
        help="Feature with an instruction; none for no instruction.",
    ),
    click.option(
        "--action",
        multiple=True,
        metavar="FIELD",
        help="Feature of the action, or a part of one: action[:7] is the first 7 values of a step. "
        "Several are concatenated in the order given; none for no action.",
    ),
    click.option(
        "--state",
        multiple=True,
        metavar="FIELD",
        help="Feature of the state, or a part of one; as for --action.",
    ),
    click.option(
        "--reward",
        metavar="FIELD",
        help="Feature of the reward, one number per step; none for no reward.  "
        "[default: reward, if there is one]",
    ),
    click.option(
        "--success",
        metavar="FIELD[~REGEX]",
        help="Flag that tells whether an episode succeeded, or a text in which REGEX matches if it did.  "
        "[default: that of the catalog]",
    ),
    click.option(
        "--action-names",
        metavar="NAME,...",
        help="A name for each column of the action; a motion has dx, dy and dz, or x, y and z if positions "
        "are absolute.  [default: those of the catalog]",
    ),
    click.option(
        "--action-kind",
        multiple=True,
        metavar="[COLUMNS=]KIND",
        help=f"Kind of columns of the action: {', '.join(KINDS)}. COLUMNS are names or numbers, such as "
        "dx,dy or 0:3; without them it is the kind of all.  [default: those of the catalog]",
    ),
    click.option("--state-names", metavar="NAME,...", help="A name for each column of the state."),
    click.option(
        "--state-kind", multiple=True, metavar="[COLUMNS=]KIND", help="Kind of columns of the state."
    ),
    click.option(
        "--no-action",
        multiple=True,
        type=click.Choice(["first", "last", "none"]),
        help="Step of every episode that holds no action, whatever is in it; none for none. One that moves "
        "nothing holds none anyway.  [default: that of the catalog]",
    ),
    click.option(
        "--camera",
        multiple=True,
        metavar="NAME[=ROLE]",
        help=f"Camera to read. ROLE is {', '.join(ROLES[:-1])} or {ROLES[-1]}.  [default: the primary one, "
        "of recordings all; roles of the catalog, else the first is primary]",
    ),
    click.option(
        "--bgr",
        multiple=True,
        metavar="CAMERA",
        help="Camera whose images hold BGR instead of RGB; none for none. Frames become RGB.  "
        "[default: those of the catalog]",
    ),
    click.option(
        "--source-split",
        multiple=True,
        metavar="NAME",
        help="The source's own split to read.  [default: all]",
    ),
    video_options,
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Tasks that run at a time.  [default: one per core; on a Ray cluster: as many as it takes]",
    ),
    click.option(
        "--engine",
        type=click.Choice(["processes", "ray"]),
        default="processes",
        help="What runs the tasks: processes of this machine, or a Ray cluster.",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="Address of the cluster; auto: that of this node.  [default: start one]",
    ),
    click.option("--part", metavar="I/N", help="Do part I of N only, from 0/N to N-1/N; for job arrays."),
    quiet_option,
)
"""Options that say how to read a source."""


def task_count(asked: int | None, ray_address: str | None) -> int:
    """Tasks that run at a time; a running cluster limits them itself."""
    from oxcart.compile.engines.processes import default_workers

    return asked or (default_workers() if ray_address is None else sys.maxsize)


def source_config(
    source: str,
    environment: str | None,
    catalog: str | None,
    environment_table: str | None,
    instruction: tuple[str, ...],
    action: tuple[str, ...],
    state: tuple[str, ...],
    reward: str | None,
    success: str | None,
    action_names: str | None,
    action_kind: tuple[str, ...],
    state_names: str | None,
    state_kind: tuple[str, ...],
    no_action: tuple[str, ...],
    camera: tuple[str, ...],
    bgr: tuple[str, ...],
    source_split: tuple[str, ...],
    licence: tuple[str, ...],
    **videos: Any,
) -> SourceConfig:
    from oxcart.compile.environment_table import read_places
    from oxcart.compile.sources.base import EnvironmentRule, SourceConfig, SuccessRule
    from oxcart.compile.sources.kinds import recognise

    kind, url = recognise(source)
    cameras = [_camera(one) for one in camera]
    if kind != "videos" and len(licence) > 1:
        raise ConfigError(f"--licence: expected the one of the dataset, got {len(licence)}; OR joins several")

    if environment_table is not None and environment is not None:
        raise ConfigError("--environment-table: expected alone, got --environment beside it; leave one out")

    def fields(values: tuple[str, ...]) -> tuple[str, ...] | None:
        return () if values == ("none",) else values or None

    return SourceConfig(
        url=url,
        kind=kind,
        video=video_config(kind, licence=licence if kind == "videos" else (), **videos),
        licence=licence[0] if licence and kind != "videos" else None,
        source_splits=source_split or None,
        cameras=tuple(name for name, _ in cameras) or None,
        roles={name: role for name, role in cameras if role is not None},
        bgr=fields(bgr),
        catalog=catalog,
        instruction=fields(instruction),
        action=fields(action),
        state=fields(state),
        reward=fields((reward,)) if reward is not None else None,
        success=SuccessRule.parse(success) if success is not None else None,
        action_names=None if action_names is None else tuple(action_names.split(",")),
        action_kinds=action_kind,
        state_names=None if state_names is None else tuple(state_names.split(",")),
        state_kinds=state_kind,
        no_action=fields(no_action),
        environment=EnvironmentRule.parse(environment) if environment is not None else None,
        environments=read_places(environment_table) if environment_table is not None else None,
    )


def _camera(text: str) -> tuple[str, str | None]:
    """Name and role of a camera written as `NAME` or `NAME=ROLE`."""
    name, equals, role = text.rpartition("=")
    if not equals:
        return text, None
    one_of(f"--camera {text}", role, ROLES)
    return name, role
