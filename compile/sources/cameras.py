"""What is known of the cameras that are read: their roles, and the order of their colours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from oxcart.compile.sources.base import Camera, SourceConfig
from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.roles import ROLES
from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError


def with_roles(
    cameras: Sequence[Camera],
    config: SourceConfig,
    known_roles: Mapping[str, str],
    known_channels: Mapping[str, str],
    find: Callable[[str, Collection[str]], str | None],
) -> tuple[Camera, ...]:
    """The cameras with their roles and channels: those of the options, else those that are known.

    If no camera is said to be the primary one, it is the first of which nothing else is said.

    Args:
        cameras: the cameras that are compiled.
        config: what the options say of them.
        known_roles: camera -> role, whether it is compiled or not.
        known_channels: camera -> channels, likewise.
        find: the first of some fields that a name stands for; None if there is none.

    Raises:
        ConfigError: an option names a camera that is not compiled, or two cameras have one name or one role.
    """

    def fields(table: Mapping[str, str], option: str) -> dict[str, str]:
        """Field -> word, for the compiled cameras in a table; every camera of an option must be one."""
        found = {find(name, [camera.field for camera in cameras]): name for name in table}
        if option and None in found:
            there = [camera.name for camera in cameras]
            name = found[None]
            raise ConfigError(
                f"{option} {name}: expected a camera that is compiled: {', '.join(there)}"
                + did_you_mean(name, there)
            )
        return {field: table[name] for field, name in found.items() if field is not None}

    given = fields(config.roles, "--camera")
    for role in given.values():
        one_of("camera role", role, ROLES)
    if len(set(given.values())) != len(given):
        raise ConfigError(
            f"--camera: expected a role of its own for each camera, got {', '.join(given.values())}"
        )
    known = fields(known_roles, "")
    roles = {field: role for field, role in known.items() if role not in given.values()} | given
    free = [camera.field for camera in cameras if camera.field not in roles]
    if "primary" not in roles.values() and free:
        roles[free[0]] = "primary"
    if config.bgr is None:
        channels = fields(known_channels, "")
    else:
        channels = fields(dict.fromkeys(config.bgr, "bgr"), "--bgr")
    taken = set(ARRAYS)
    for camera in cameras:
        if camera.name in taken:
            what = "the name is taken; two members of one episode would be called so"
            raise ConfigError(f"camera {camera.name!r}: {what}")
        taken.add(camera.name)
    return tuple(
        replace(camera, role=roles.get(camera.field), channels=channels.get(camera.field, "rgb"))
        for camera in cameras
    )
