"""Every entry of the catalog is well-formed, and nothing but an exact name finds one."""

from __future__ import annotations

import re

import pytest

from oxcart.compile import catalog
from oxcart.compile.catalog import Entry, Ports, lookup, parse, ported
from oxcart.compile.sources.base import EnvironmentRule, SuccessRule, clean
from oxcart.manifests.columns import Column
from oxcart.manifests.roles import ROLES
from oxcart.shards.errors import ConfigError

NAMES = catalog.names()

GOOD = """
about: A robot does things.
version: 1.0.0
cameras: [front/image, wrist]
roles: {front/image: primary, wrist: wrist}
channels: {wrist: bgr}
instruction: [language_instruction]
action: ["action[:2]", hand]
state: []
columns:
  action:
    - {names: [dx, dy], kind: delta, unit: m, frame: base}
    - {names: [terminate], kind: other}
  hand:
    - {names: [gripper], kind: gripper_absolute}
success: {field: outcome, pattern: ^done$}
no_action: [last]
control_rate: {hz: 5.0, verified: false, source: A paper.}
environment:
  field: file_path
  patterns: ['/(?P<environment>[^/]+)/(?P<session>[^/]+)/']
  optional: true
  known: inferred
aliases:
  kitchen: [old_kitchen]
licence: cc-by-4.0
citation: https://arxiv.org/abs/2308.12952
notes: [Beware.]
ports:
  repos: [lerobot/robot, some.one/robot_lerobot]
  cameras: {top: front/image}
  rgb: [lerobot/robot]
  columns:
    action:
      - {names: [dx, dy], kind: delta}
      - {names: [pad], kind: unknown}
"""
PORTS = [
    "FedorX8/fractal20220817_data_lerobot",
    "FedorX8/bridge_v2_lerobot",
    "FedorX8/stanford_hydra_dataset_lerobot",
    "FedorX8/language_table_lerobot",
    "FedorX8/taco_play_lerobot",
    "FedorX8/furniture_bench_dataset_lerobot",
    "FedorX8/utaustin_mutex_lerobot",
    "FedorX8/austin_sailor_dataset_lerobot",
    "FedorX8/roboturk_lerobot",
    "FedorX8/toto_lerobot",
    "lerobot/austin_sirius_dataset",
    "FedorX8/berkeley_autolab_ur5_lerobot",
    "FedorX8/iamlab_cmu_pickup_insert_lerobot",
    "FedorX8/viola_lerobot",
    "lerobot/berkeley_fanuc_manipulation",
    "lerobot/nyu_franka_play_dataset",
    "lerobot/jaco_play",
    "FedorX8/berkeley_cable_routing_lerobot",
    "lerobot/austin_buds_dataset",
    "lerobot/cmu_stretch",
    "lerobot/nyu_door_opening_surprising_effectiveness",
    "lerobot/dlr_edan_shared_control",
    "lerobot/ucsd_kitchen_dataset",
]
"""The LeRobot datasets of a common mixture."""


def test_there_are_entries() -> None:
    assert {"bridge_dataset", "droid", "oxcart_kitchens"} <= set(NAMES)
    assert len(NAMES) >= 70
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_found_by_its_name(name: str) -> None:
    entry = lookup(name)
    assert clean(name) == name
    assert entry.about
    assert entry.version
    assert entry.cameras
    assert None not in (entry.instruction, entry.action, entry.state)


def test_a_port_is_found_by_its_repo_id() -> None:
    every = [repo for name in NAMES for repo in lookup(name).ports.repos]
    assert len(every) == len(set(every))
    assert len(PORTS) == 23
    assert set(PORTS) <= set(every)
    for repo in PORTS:
        dataset = ported(repo)
        assert dataset is not None
        bare = repo.split("/")[1].removesuffix("_lerobot")
        assert dataset.startswith(bare) or (bare, dataset) == ("bridge_v2", "bridge_dataset")
        others = set(lookup(dataset).ports.repos) - {repo}
        if dataset.split("_")[0] not in ("fractal20220817", "bridge", "language", "furniture"):
            assert repo.startswith("lerobot/") or f"lerobot/{bare}" in others
    for other in ("lerobot/no_such", "lerobot/viol", "viola", "erobot/viola", ""):
        assert ported(other) is None


@pytest.mark.parametrize("name", NAMES)
def test_ports_have_columns_for_whole_features(name: str) -> None:
    entry = lookup(name)
    for feature, columns in entry.ports.columns.items():
        assert len(columns) == (8 if feature == "observation.state" else 7)
        kinds = {one.kind for one in columns if one.name.startswith("pad")}
        assert kinds <= {"other"}
    assert not entry.ports.rgb or entry.channels


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_has_one_camera_that_is_looked_through_first(name: str) -> None:
    entry = lookup(name)
    assert entry.cameras
    primary = next((camera for camera, role in entry.roles.items() if role == "primary"), None)
    assert primary in {None, entry.cameras[0]}
    assert list(entry.roles.values()) == sorted(entry.roles.values(), key=ROLES.index)


def test_an_entry_is_what_its_file_says() -> None:
    rule = EnvironmentRule(
        field="file_path",
        patterns=("/(?P<environment>[^/]+)/(?P<session>[^/]+)/",),
        optional=True,
        known="inferred",
    )
    assert parse("x", GOOD) == Entry(
        about="A robot does things.",
        version="1.0.0",
        cameras=("front/image", "wrist"),
        roles={"front/image": "primary", "wrist": "wrist"},
        channels={"wrist": "bgr"},
        instruction=("language_instruction",),
        action=("action[:2]", "hand"),
        state=(),
        columns={
            "action": (
                Column(name="dx", kind="delta", unit="m", frame="base"),
                Column(name="dy", kind="delta", unit="m", frame="base"),
                Column(name="terminate", kind="other"),
            ),
            "hand": (Column(name="gripper", kind="gripper_absolute"),),
        },
        success=SuccessRule(field="outcome", pattern="^done$"),
        no_action=("last",),
        control_rate={"hz": 5.0, "verified": False, "source": "A paper."},
        environment=rule,
        aliases={"kitchen": ("old_kitchen",)},
        licence="CC-BY-4.0",
        citation="https://arxiv.org/abs/2308.12952",
        ports=Ports(
            repos=("lerobot/robot", "some.one/robot_lerobot"),
            cameras={"top": "front/image"},
            rgb=("lerobot/robot",),
            columns={
                "action": (
                    Column(name="dx", kind="delta"),
                    Column(name="dy", kind="delta"),
                    Column(name="pad", kind="unknown"),
                )
            },
        ),
        notes=("Beware.",),
    )
    assert parse("x", "about: Little is known.") == Entry(about="Little is known.")
    whole = parse("x", "about: A cell.\nenvironment: {whole: cell, known: inferred}").environment
    assert whole == EnvironmentRule(whole="cell", known="inferred")
    assert parse("x", "about: A flag.\nsuccess: done").success == SuccessRule(field="done")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("about: A robot does things.", "", "about: expected one line of text, got None"),
        (
            "repos: [lerobot/robot, ",
            "repos: [robot, ",
            "ports: repos: expected repo ids such as lerobot/viola",
        ),
        ("rgb: [lerobot/robot]", "rgb: [lerobot/robto]", "ports: rgb: expected one of lerobot/robot"),
        ("{top: front/image}", "{top: front}", "ports: cameras: expected one of front/image, wrist"),
        (
            "    action:\n      - {names: [dx, dy], ",
            "    actoin:\n      - {names: [dx, dy], ",
            "ports: columns: unknown key",
        ),
        ("A robot does things.", '"two\\nlines"', "about: expected one line"),
        ("about: A robot", "abuot: A robot", "unknown key 'abuot'; expected"),
        ("version: 1.0.0", "version: 1.0", "version: expected text such as 1.0.0, got 1.0; quote it"),
        ("[front/image, wrist]", "[a/b, a_b]", "cameras: expected names that differ as members"),
        ("[front/image, wrist]", "[]", "cameras: expected names"),
        ("[front/image, wrist]", "front", "cameras: expected a list of texts that differ, got 'front'"),
        ("[language_instruction]", "[1]", "instruction: expected a list of texts"),
        ("[language_instruction]", "[a, a]", "instruction: expected a list of texts"),
        ("state: []", "state:", "state: expected a list of texts that differ, got None"),
        ("state: []", "state: [' a']", "state: expected a list of texts"),
        ("hz: 5.0", "hz: 5", "control_rate: expected hz like 5.0"),
        ("hz: 5.0", "hz: .nan", "control_rate: expected hz like 5.0"),
        ("verified: false", "verified: maybe", "control_rate: expected hz"),
        ("hz: 5.0, ", "", "control_rate: expected hz"),
        ("hz: 5.0", "rate: 5.0", "control_rate: unknown key 'rate'"),
        (
            ", source: A paper.",
            "",
            "control_rate: expected hz like 5.0, verified true or false, and a source",
        ),
        ("source: A paper.", 'source: "two\\nlines"', "and a source of one line"),
        (
            "{hz: 5.0, verified: false, source: A paper.}",
            "5.0",
            "control_rate: expected keys such as hz, got 5.0",
        ),
        ("wrist: wrist", "hand: wrist", "roles: unknown key 'hand'; expected front/image, wrist"),
        (
            "wrist: wrist",
            "wrist: hand",
            "roles: wrist: expected one of primary, secondary, wrist; got 'hand'",
        ),
        ("wrist: wrist", "wrist: primary", "roles: expected a role of its own for each camera"),
        (
            "front/image: primary, wrist: wrist",
            "wrist: primary",
            "roles: the first camera is the primary one; front/image is first",
        ),
        (
            "{front/image: primary, wrist: wrist}",
            "primary",
            "roles: expected keys such as front/image, got 'primary'",
        ),
        ("{wrist: bgr}", "{wrist: gbr}", "channels: wrist: expected one of rgb, bgr; got 'gbr'"),
        ("{wrist: bgr}", "{hand: bgr}", "channels: unknown key 'hand'"),
        ("  hand:\n", "  gripper:\n", "columns: unknown key 'gripper'; expected action, hand"),
        ("  hand:\n", "  action[:2]:\n", "columns: unknown key 'action[:2]'"),
        (
            "    - {names: [gripper], kind: gripper_absolute}\n",
            "",
            "columns: hand: expected a list of columns",
        ),
        ("[gripper]", "gripper", "columns: hand: names: expected a list of texts that differ, got 'gripper'"),
        ("names: [gripper]", "name: gripper", "columns: hand: unknown key 'name'; expected names, kind"),
        ("names: [gripper], ", "", "columns: hand: names: expected a list of texts that differ, got None"),
        ("gripper_absolute", "gripper_relative", "kind of column gripper: expected one of delta, absolute"),
        (", kind: other", "", "kind of column terminate: expected one of delta, absolute"),
        ("unit: m", "unit: 1", "columns: action: unit: expected text, got 1"),
        ("frame: base", "frame: ''", "columns: action: frame: expected text, got ''"),
        ("[terminate]", "[dx]", "columns: action: column 'dx' is there twice"),
        ("[gripper]", "[dx]", "action: column 'dx' is there twice; name the columns so that they differ"),
        ("action[:2]", "action[:4]", "columns: action: expected 4 or more, got 3"),
        ("success: {field: outcome, pattern: ^done$}", "success: 1", "success: expected keys such as field"),
        ("field: outcome, ", "", "success: field: expected text, got None"),
        ("pattern: ^done$", "pattern: '('", "success pattern '(': not a regular expression"),
        ("pattern: ^done$", "pattern: 1", "success: pattern: expected text, got 1"),
        ("no_action: [last]", "no_action: last", "no_action: expected a list of texts"),
        ("no_action: [last]", "no_action: [end]", "no_action: expected one of first, last; got 'end'"),
        ("cc-by-4.0", "CC BY 4.0", "got 'CC BY 4.0'; did you mean CC-BY-4.0?"),
        ("cc-by-4.0", "4.0", "licence: expected text such as CC-BY-4.0, got 4.0"),
        ("https://arxiv.org/abs/2308.12952", '"two\\nlines"', "citation: expected one line of text"),
        ("field: file_path", "feild: file_path", "environment: unknown key 'feild'; expected"),
        ("field: file_path", "field: 3", "environment: field: expected text, got 3"),
        ("field: file_path", "whole: cell", "patterns and optional belong to a field"),
        ("  field: file_path\n", "", "environment: expected either field or whole, got neither"),
        ("known: inferred", "known: guessed", "known: expected one of declared, inferred; got 'guessed'"),
        ("  known: inferred\n", "", "known: expected one of declared, inferred; got None"),
        ("optional: true", "optional: 1", "environment: optional: expected true or false, got 1"),
        ("[^/]+)/(?P", "[^/]+/(?P", "not a regular expression"),
        ("?P<environment>", "?P<place>", "expected a group `environment` and perhaps `session`"),
        ("?P<session>", "?P<date>", "expected a group `environment` and perhaps `session`"),
        ("[old_kitchen]", "[kitchen]", "aliases: 'kitchen' is listed twice"),
        ("[old_kitchen]", "old_kitchen", "aliases: kitchen: expected a list"),
        ("notes: [Beware.]", "notes: Beware.", "notes: expected a list of texts"),
        ("state: []", "state: []\nstate: []", "a key is given twice"),
        ("notes: [Beware.]", "notes: [Beware.", "not YAML"),
        (GOOD, "- a", "an entry: expected keys such as about"),
        (GOOD, "", "an entry: expected keys such as about"),
    ],
)
def test_a_malformed_entry_is_refused_in_one_line(old: str, new: str, reason: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        parse("my_robot", GOOD.replace(old, new))
    message = str(caught.value)
    assert message.startswith("catalog entry my_robot: ")
    assert reason in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "bridge_dataset2",
        "Bridge_dataset",
        "bridge_dataset.yaml",
        "../catalog/bridge_dataset",
        "./bridge_dataset",
        "/etc/passwd",
        "__init__",
        " bridge_dataset",
        "bridge_dataset\n",
        "..",
        "",
        "a\0b",
        "no_such_dataset",
    ],
)
def test_another_name_finds_nothing(name: str) -> None:
    assert lookup(name) == Entry()


RAW = "/nfs/kun2/users/x/datasets/raw"


@pytest.mark.parametrize(
    ("path", "environment", "session"),
    [
        (
            "/nfs/kun2/users/x/bridge_data_v1/berkeley/toysink2_bww/put_pot_in_sink/2021-07-12/0/train/out.npy",
            "toysink2_bww",
            "bridge_data_v1/berkeley/toysink2_bww/put_pot_in_sink/2021-07-12/0",
        ),
        (
            "/x/bridge_data_v2/datacol2_toykitchen7/drawer_pnp/00/val/out.npy",
            "datacol2_toykitchen7",
            "bridge_data_v2/datacol2_toykitchen7/drawer_pnp/00",
        ),
        ("/x/rss/toykitchen2/set_table/01/train/out.npy", "toykitchen2", "rss/toykitchen2/set_table/01"),
        (
            "/x/icra/toykitchen_fixed_cam_resetfree_push_sweep/toykitchen6/00/train/out.npy",
            "toykitchen6",
            "icra/toykitchen_fixed_cam_resetfree_push_sweep/toykitchen6/00",
        ),
        ("/x/flap/toykitchen_sequential_tasks/a_task/00/train/out.npy", None, None),
        (
            f"{RAW}/bridge_data_v2/toykitchen7/fold/15/2022-10-25_14-03-44/raw/traj_group0/traj3",
            "toykitchen7",
            "bridge_data_v2/toykitchen7/fold/15/2022-10-25_14-03-44",
        ),
        (
            f"{RAW}/bridge_data_v1/berkeley/toysink3_bww/lift/2021-07-12_14-03-44/raw/traj_group0/traj3",
            "toysink3_bww",
            "bridge_data_v1/berkeley/toysink3_bww/lift/2021-07-12_14-03-44",
        ),
        ("/x/scripted_numpy_256/pnp_push_sweep/2023-05-04_17-29-36/train/out.npy", None, None),
        ("/x/bridge_data_v2/datacol2_toykitchen7/00/train/out.pkl", None, None),
        ("/x/elsewhere/toykitchen2/00/train/out.npy", None, None),
        ("", None, None),
    ],
)
def test_bridge_paths_tell_kitchen_and_session(
    path: str, environment: str | None, session: str | None
) -> None:
    rule = lookup("bridge_dataset").environment
    assert rule is not None
    assert rule.find(path) == (environment, session)


def test_train_and_val_of_one_bridge_folder_are_one_session() -> None:
    rule = lookup("bridge_dataset").environment
    assert rule is not None
    base = "/x/bridge_data_v2/toykitchen1/many_skills/03"
    assert rule.find(f"{base}/train/out.npy") == rule.find(f"{base}/val/out.npy")


def test_bridge_joins_nothing_but_names_of_one_place() -> None:
    def place(name: str) -> str:
        core = re.sub(r"^(datacol1|datacol2|deepthought|minsky)_", "", name)
        return re.sub(r"_(room8052|bww|white_tray|counter|dishwasher)$", "", core)

    aliases = lookup("bridge_dataset").aliases
    assert {"toykitchen1", "toykitchen2"} <= set(aliases)
    for name, others in aliases.items():
        assert {place(other) for other in others} == {place(name)}
    # and no two rows are one place
    assert len({place(name) for name in aliases}) == len(aliases)


@pytest.mark.parametrize(
    ("dataset", "path", "environment", "session"),
    [
        (
            "droid",
            "gs://x/r2d2-data-full/AUTOLab/success/2023-07-07/Fri_Jul__7_09:42:23_2023/trajectory.h5",
            "AUTOLab",
            "2023-07-07",
        ),
        (
            "droid",
            "/mnt/IRIS/failure/2023-03-01/Wed_Mar__1_17:05:41_2023/recordings/MP4",
            "IRIS",
            "2023-03-01",
        ),
        ("droid", "/mnt/IRIS/other/2023-03-01/a/trajectory.h5", None, None),
        ("robo_net", "/data/hdf5/penn_kuka_traj1.hdf5", "penn", None),
        ("robo_net", "berkeley_sawyer_traj10.hdf5", "berkeley", None),
        ("robo_net", "/data/hdf5/traj1.hdf5", None, None),
        ("robo_set", "/x/roboset/v0.4/baking_prep/scene_4/x.h5", "scene_4", None),
        ("robo_set", "/x/roboset/table/x.h5", None, None),
        ("dobbe", "/x/homes_of_new_york/Drawer/Home12/Env1/2023-05-10", "Home12", "/Home12/Env1"),
        ("dobbe", "/x/homes_of_new_york/Drawer/somewhere/Env1/2023-05-10", None, None),
    ],
)
def test_other_paths_tell_environment_and_session(
    dataset: str, path: str, environment: str | None, session: str | None
) -> None:
    rule = lookup(dataset).environment
    assert rule is not None
    assert rule.find(path) == (environment, session)
