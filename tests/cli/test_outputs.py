"""No option that names a file to write destroys a dataset, a source, a run, or a file of another kind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from oxcart.cli.main import oxcart
from oxcart.cli.options import LocalPath
from oxcart.cli.outputs import OutputOption
from oxcart.manifests.annotation import MOTION, beside
from sample_compile import Compiled, cli, complaint, tree, tree_of, uploaded
from servers import Server

READ = {
    ("repair-split", "--report"),
    ("compile", "--split"),
    ("compile", "--exclude-ids"),
    ("scan", "--exclude-ids"),
    ("scenes", "--exclude-ids"),
    ("export lerobot", "--audit"),
    ("push", "--audit"),
    ("evaluate laq", "--subsets"),
    ("evaluate laq", "--flow-weights"),
    ("label", "--laq"),
    ("label", "--policy"),
    ("rollout", "--adapter"),
    ("rollout", "--film"),
    ("predict", "--image"),
    ("predict", "--laq"),
}
"""Options that name files which are read, or a directory that is judged by its mark."""

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "annotate action": ("DATASET",),
    "annotate motion": ("DATASET",),
    "audit": ("DATASET",),
    "bench shuffle": ("DATASET",),
    "compare": ("RUN",),
    "compile": ("SOURCE", "OUT"),
    "evaluate laq": ("RUN", "DATASET"),
    "label": ("DATASET", "--laq", "RUN"),
    "predict": ("RUN", "--image", "IMAGE", "--instruction", "push"),
    "repair-split": ("DATASET", "--report", "REPORT"),
    "rollout": ("RUN",),
    "scan": ("SOURCE",),
    "scenes": ("SOURCE",),
    "show": ("DATASET",),
}
"""What else each command that writes a file is given."""


class Places(NamedTuple):
    """What a command is tried on; `fill` turns the words of ARGUMENTS into paths."""

    folder: Path
    dataset: Path
    source: Path
    run: Path

    def fill(self, command: str) -> list[str]:
        named = {
            "DATASET": self.dataset,
            "SOURCE": self.source,
            "RUN": self.run,
            "OUT": self.folder / "new",
            "IMAGE": self.folder / "image.png",
            "REPORT": self.folder / "report.json",
        }
        return [*command.split(), *(str(named.get(word, word)) for word in ARGUMENTS[command])]


def refused(command: str, *arguments: object) -> str:
    """What a command says that refuses to begin; an audit that cannot be made has an exit code of its own."""
    return complaint(cli(*arguments), 2 if command == "audit" else 1)


def walk(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Option]]:
    """Every option of every command."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, f"{path} {name}".strip())
    for param in command.params:
        if isinstance(param, click.Option):
            yield path, param


OPTIONS = sorted(
    (path, max(option.opts, key=len), (option.writes.suffixes or ("",))[0])
    for path, option in walk(oxcart)
    if isinstance(option, OutputOption)
)


@pytest.fixture(scope="module")
def made(whole: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """A dataset, its source, and what looks like a run; no test may change any of them."""
    folder = tmp_path_factory.mktemp("outputs")
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "run.json", "metrics.jsonl", "loss.png", "checkpoints/last-000000001"):
        (run / name).write_text("{}")
    return Places(folder, whole.out, whole.source, run)


def belongings(made: Places) -> Iterator[Path]:
    """A file of each kind that a dataset, a source and a run have, and names that are free in them."""
    yield from (made.dataset / name for name in ("manifest.json", "episodes.parquet", "shards", "new"))
    yield next(iter(sorted((made.dataset / "shards").glob("*.tar"))))
    yield from (made.source / name for name in ("features.json", "new"))
    yield from (made.run / name for name in ("config.yaml", "checkpoints/last-000000001", "loss.png"))


def spellings(place: Path, folder: Path, suffix: str) -> Iterator[Path]:
    """The place itself, with `..` in it, and through links."""
    yield place
    yield place.parent / ".." / place.parent.name / place.name
    (folder / "directory").symlink_to(place.parent)
    yield folder / "directory" / place.name
    (folder / f"soft{suffix}").symlink_to(place)
    yield folder / f"soft{suffix}"
    if place.is_file():
        os.link(place, folder / f"hard{suffix}")
        yield folder / f"hard{suffix}"


def test_every_option_that_writes_a_file_is_judged_in_one_place() -> None:
    assert {path for path, _, _ in OPTIONS} == set(ARGUMENTS)
    for path, option in walk(oxcart):
        name = max(option.opts, key=len)
        if isinstance(option.type, LocalPath) or name in ("--out", "--output"):
            assert isinstance(option, OutputOption) or (path, name) in READ, f"oxcart {path} {name}"


@pytest.mark.parametrize(("command", "option", "suffix"), OPTIONS)
def test_nothing_that_a_dataset_a_source_or_a_run_holds_is_overwritten(
    command: str, option: str, suffix: str, made: Places, tmp_path: Path
) -> None:
    before = [tree(place) for place in (made.dataset, made.source, made.run)]
    tried = 0
    for i, place in enumerate(belongings(made)):
        folder = tmp_path / str(i)
        folder.mkdir()
        for target in spellings(place, folder, suffix):
            if suffix and target.suffix != suffix:
                continue
            for overwrite in ((), ("--overwrite",)):
                if overwrite and target.name.startswith("hard"):
                    continue  # it is another name of the file, which is replaced; see below
                said = refused(command, *made.fill(command), option, target, *overwrite)
                assert said.startswith(f"{option}: {str(target)!r}"), said
                tried += 1
    assert tried >= (15 if suffix else 60)
    assert [tree(place) for place in (made.dataset, made.source, made.run)] == before


@pytest.mark.parametrize(("command", "option", "suffix"), OPTIONS)
def test_a_file_of_another_kind_is_replaced_only_when_asked(
    command: str, option: str, suffix: str, made: Places, tmp_path: Path
) -> None:
    target = tmp_path / f"notes{suffix or '.txt'}"
    target.write_text("years of work")
    said = refused(command, *made.fill(command), option, target)
    assert said.startswith(f"{option}: {str(target)!r} exists and is not ")
    assert said.endswith("or pass --overwrite to replace it") == (option != "--write-rule")
    for odd, why in ((tmp_path, "is a folder"), (tmp_path / f"pipe{suffix}", "is not a regular file")):
        if odd != tmp_path:
            os.mkfifo(odd)
        if (suffix and odd == tmp_path) or (command == "label" and odd == tmp_path):
            continue
        assert why in refused(command, *made.fill(command), option, odd)
    assert target.read_text() == "years of work"


def test_what_the_same_command_left_is_replaced(made: Places, tmp_path: Path) -> None:
    rule, census, sheet = tmp_path / "rule.yaml", tmp_path / "census.parquet", tmp_path / "sheet.png"
    link = tmp_path / "link.png"
    link.symlink_to(sheet)
    for _ in range(2):
        options = ("--workers", 1, "--dry-run", "--write-rule", rule)
        assert cli("compile", made.source, made.folder / "new", *options).exit_code == 0
        assert cli("scan", made.source, "--workers", 1, "--parquet", census).exit_code == 0
        assert cli("show", made.dataset, "-o", link).exit_code == 0
    assert not link.is_symlink(), "the link is replaced, and nothing is written through it"
    assert not sheet.exists()
    assert link.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["census.parquet", "link.png", "rule.yaml"]


def test_an_image_of_somebody_else_is_replaced_only_when_asked(made: Places, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("photo.png", "photo.jpg", "photo.webp"):
        photo = tmp_path / name
        Image.new("RGB", (8, 8)).save(photo)
        said = complaint(cli("show", made.dataset, "-o", photo))
        assert "exists and is not an image that oxcart drew" in said
        for options in (("--overwrite",), ()):
            assert cli("show", made.dataset, "-o", photo, *options).exit_code == 0
    thesis = tmp_path / "thesis.pdf"
    thesis.write_bytes(b"%PDF-1.4 years of work")
    assert "is not a plot" in complaint(cli("bench", "shuffle", made.dataset, "-o", thesis))
    for suffix in ("png", "pdf", "svg"):
        plot = tmp_path / f"plot.{suffix}"
        drawn = []
        for _ in range(2):
            assert cli("bench", "shuffle", made.dataset, "-o", plot).exit_code == 0
            drawn.append(plot.read_bytes())
        assert suffix == "svg" or drawn[0] == drawn[1], "nothing of the clock is in it"


def test_a_rule_is_not_replaced_by_the_overwrite_of_a_dataset(made: Places, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("years of work")
    out = ("compile", made.source, tmp_path / "out", "--workers", 1, "--overwrite")
    said = complaint(cli(*out, "--write-rule", mine))
    assert said == (
        f"--write-rule: {str(mine)!r} exists and is not a split rule that oxcart wrote; choose another name"
    )


def test_a_dataset_is_known_by_its_manifest_whatever_else_it_holds(made: Places, tmp_path: Path) -> None:
    """An extended one has its episodes under another name."""
    from oxcart.manifests.ownership import check_file
    from oxcart.shards.errors import ConfigError

    (tmp_path / "extended").mkdir()
    shutil.copy(made.dataset / "manifest.json", tmp_path / "extended")
    with pytest.raises(ConfigError, match="is inside the dataset"):
        check_file("--json", tmp_path / "extended" / "manifest.json")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text('{"name": "a web site"}')
    check_file("--output", tmp_path / "site" / "page.html")


def test_overwrite_replaces_a_hard_link_and_leaves_what_it_was_linked_to(
    made: Places, tmp_path: Path
) -> None:
    before, linked = tree(made.dataset), tmp_path / "sheet.png"
    os.link(made.dataset / "manifest.json", linked)
    assert cli("show", made.dataset, "-o", linked, "--overwrite").exit_code == 0
    assert linked.read_bytes().startswith(b"\x89PNG")
    assert tree(made.dataset) == before


def test_an_input_of_the_same_command_is_not_written_to(made: Places, tmp_path: Path) -> None:
    report, folder = tmp_path / "report.json", tmp_path / "videos"
    report.write_text("{}")
    folder.mkdir()
    said = complaint(cli("repair-split", made.dataset, "--report", report, "-o", report))
    assert said == (
        f"--output: {str(report)!r} is --report ({str(report)!r}) of the same command; choose another path"
    )
    census = tmp_path / "census.parquet"
    assert cli("scan", made.source, "--workers", 1, "--quiet", "--parquet", census).exit_code == 0
    options = ("--census", census, "--write-rule", census, "--overwrite", "--dry-run")
    assert "is --census" in complaint(cli("compile", made.source, tmp_path / "new", *options))
    said = complaint(cli("scan", made.source, census, "--merge", "--parquet", census, "--overwrite"))
    assert f"--parquet: {str(census)!r} is" in said
    (folder / "mine.mp4").write_text("years of work")
    said = complaint(cli("scan", f"videos:{folder}", "--parquet", folder / "mine.mp4", "--overwrite"))
    assert said.endswith("mine.mp4' exists and is not a census; choose another name")
    page = tmp_path / "page.html"
    same = tmp_path / "." / "page.html"
    assert "of the same command" in refused("audit", "audit", made.dataset, "-o", page, "--json", same)
    out = tmp_path / "out"
    said = complaint(cli("compile", made.source, out, "--write-rule", out / "rule.yaml"))
    assert "is inside OUT" in said


def test_a_run_takes_new_files_beside_its_own(made: Places, tmp_path: Path) -> None:
    from oxcart.manifests.ownership import check_file
    from oxcart.shards.errors import ConfigError

    check_file("--output", made.run / "analysis.html")
    for name in ("loss.png", "checkpoints/x.html", "checkpoints/../config.yaml"):
        with pytest.raises(ConfigError, match="is inside the run"):
            check_file("--output", made.run / name)


def test_motion_beside_a_dataset_that_is_the_current_directory(
    made: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.dataset)
    assert beside(".", MOTION) == beside("./", MOTION) == f"{made.dataset}.motion.parquet"
    assert beside("a/b/", MOTION) == "a/b.motion.parquet"


def test_a_dataset_in_a_bucket_is_not_written_into(whole: Compiled, remote: str) -> None:
    url = uploaded(whole.out, remote)
    before = tree_of(url)
    for target in (f"{url}/episodes.parquet", f"{url}//shards/x.parquet", f"{url}/shards/../manifest.json"):
        said = complaint(cli("annotate", "motion", whole.out, "-o", target))
        assert said.startswith(("--out: ", "s3://"))
    assert tree_of(url) == before


def test_another_object_of_a_bucket_is_replaced_only_when_asked(whole: Compiled, remote: str) -> None:
    from oxcart.shards.store import Store

    Store(remote).put("notes.txt", b"years of work")
    target = f"{remote}/notes.txt"
    assert "exists and is not motion labels" in complaint(cli("annotate", "motion", whole.out, "-o", target))
    assert Store(remote).read("notes.txt") == b"years of work"
    assert cli("annotate", "motion", whole.out, "-o", target, "--overwrite").exit_code == 0
    assert cli("annotate", "motion", whole.out, "-o", target).exit_code == 0


def test_credentials_for_a_prefix_suffice(whole: Compiled, remote: str, bucket: Server) -> None:
    """Folders above it may not be looked into, and nobody owns what is below them."""
    prefix = remote.rpartition("/")[2]
    bucket.faults.every = lambda method, path: (
        "403" if method in ("GET", "HEAD") and prefix not in path else ""
    )
    try:
        result = cli("annotate", "motion", whole.out, "-o", f"{remote}/deep/motion.parquet")
    finally:
        bucket.faults.every = None
    assert result.exit_code == 0, result.output


def test_labels_of_another_name_are_another_kind(made: Places, tmp_path: Path) -> None:
    import numpy as np

    from oxcart.manifests.annotation import Annotation, write_annotation

    target = tmp_path / "codes.parquet"
    values = {"a": np.zeros((2, 1), np.int32)}
    write_annotation(
        str(target), Annotation(name="codes", producer="p", dataset="d", parameters={}, values=values)
    )
    said = complaint(cli("annotate", "motion", made.dataset, "-o", target))
    assert "exists and is not motion labels" in said


@pytest.mark.parametrize("folder", ["shards", ".oxcart"])
def test_out_with_a_folder_that_leads_elsewhere_is_refused(folder: str, made: Places, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / folder).symlink_to(made.source)
    before = tree(made.source)
    said = complaint(cli("compile", made.source, out, "--workers", 1))
    assert "is a symbolic link to" in said
    assert "is a symbolic link to" in complaint(cli("transcode", made.dataset, out, "--codec", "zstd"))
    assert tree(made.source) == before


Where = Callable[[Places], Path]


@pytest.mark.parametrize(
    "where",
    [
        lambda made: made.dataset / "shards" / "x",
        lambda made: made.source / "x",
        lambda made: made.run,
        lambda made: made.run / "checkpoints",
    ],
)
def test_no_directory_is_written_inside_a_dataset_a_source_or_a_run(where: Where, made: Places) -> None:
    place = where(made)
    commands = (
        ("compile", made.source, place),
        ("transcode", made.dataset, place, "--codec", "zstd"),
        ("sample", "rlds", place),
        ("sample", "videos", place),
        ("sample", "vlm", place),
    )
    before = [tree(one) for one in (made.dataset, made.source, made.run)]
    for command in commands:
        if command[1] == "rlds" and place == made.run:
            continue  # writes RUN/oxcart_kitchens, which is no name of the run's own
        complaint(cli(*command))
    assert [tree(one) for one in (made.dataset, made.source, made.run)] == before


def test_a_run_does_not_begin_in_a_dataset_or_a_source(made: Places) -> None:
    for place, kind in ((made.dataset, "is the dataset"), (made.source / "run", "is inside the source")):
        said = complaint(
            cli("train", "laq", "preset=tiny", f"data.datasets=[{made.dataset}]", f"run.dir={place}")
        )
        assert kind in said


def test_an_analysis_replaces_only_an_analysis(made: Places, tmp_path: Path) -> None:
    target = tmp_path / "audit.json"
    target.write_text(json.dumps({"format": "oxcart-audit/1"}))
    said = complaint(cli("evaluate", "laq", made.run, made.dataset, "--json", target))
    assert "exists and is not the JSON of an analysis" in said
