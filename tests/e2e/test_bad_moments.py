"""Bad moments: interruptions, a full disk, two at once, damage in the repository, servers that do not help."""

import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from converter.exits import ExitCode
from examples.demo import free_port
from tests.e2e.processes import Lines, serving, started, tree
from tests.e2e.refusals import Place, Refusal, assert_says, check_refusal, new_place, refused, tiny_disk
from tests.packages import write_package

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a package of the zoo's linear model."""
    place = new_place(tmp_path_factory.mktemp("published") / "place")
    done = place.convert(zoo / "linear")
    assert done.returncode == 0, done.stderr
    return place.repository / "m" / "1"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty place."""
    return new_place(tmp_path / "place")


@pytest.fixture
def republishing(place: Place, published: Path) -> Place:
    """A place where converting publishes version 3 without TensorFlow: 1 is good, and 2, the newest, is damaged."""
    shutil.copytree(published, place.repository / "m" / "1")
    (place.repository / "m" / "2").mkdir()
    return place


def wait_for_end(process: int, seconds: float = 60) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], seconds)[0], f"process {process} is still there"
    finally:
        os.close(handle)


def ended(process: "subprocess.Popen[str]", log: Lines) -> Refusal:
    """Wait for the end of a command that was started with --json and its standard output piped."""
    assert process.stdout is not None
    stdout = process.stdout.read()
    code = process.wait(timeout=60)
    return check_refusal(code, stdout, "".join(f"{line}\n" for line in log.rest()))


@pytest.mark.parametrize(
    ("moment", "number", "group"),
    [
        ("starting TensorFlow in a process", signal.SIGINT, True),
        ("starting TensorFlow ...", signal.SIGTERM, False),
        ("loading", signal.SIGINT, False),
        ("exporting", signal.SIGINT, True),
        ("asking TensorFlow", signal.SIGHUP, False),
    ],
)
def test_an_interrupted_conversion_leaves_no_trace(
    zoo: Path, place: Place, moment: str, number: signal.Signals, *, group: bool
) -> None:
    """Ctrl-C as a terminal sends it to all of the foreground, or a tool to one process; other ways to end it too."""
    before = tree(place.root)
    command = place.command(zoo / "linear", "--json")
    with started(command, env=place.environment, stdout=subprocess.PIPE, process_group=0) as (process, log):
        log.wait_for(moment)
        (os.killpg if group else os.kill)(process.pid, number)
        refusal = ended(process, log)
    assert_says(refusal, ExitCode(128 + number), "Interrupted", (number.name, "Nothing was published"), ("again",))
    assert tree(place.root) == before
    assert place.workers() == []


def test_what_is_said_of_an_interruption_while_proving_is_true(zoo: Path, place: Place) -> None:
    """Proving a small model takes a moment: either nothing was published, or the folder that is named."""
    with started(place.command(zoo / "linear", "--json"), env=place.environment, stdout=subprocess.PIPE) as (
        process,
        log,
    ):
        log.wait_for("comparing")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
        assert process.wait(timeout=60) == said["exit_code"]
    if "Nothing was published" in json.dumps(said):
        assert tree(place.root) == {"tmp": None}
    else:
        assert set(tree(place.repository)) == {"m", *(f"m/1{file}" for file in PACKAGE_FILES)}
        assert said["exit_code"] == 0 or str(place.repository / "m" / "1") in said["error"]["cause"]


PACKAGE_FILES = ("", "/golden.npz", "/manifest.json", "/model.onnx", "/report.md")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_after_publishing_says_what_was_published(
    zoo: Path, republishing: Place, tmp_path: Path, number: signal.Signals
) -> None:
    """Whoever stops waiting for the server learns that the version is there, and where."""
    place = republishing
    before = tree(place.root)
    with serving(tmp_path / "elsewhere") as server:
        command = place.command(zoo / "linear", "--server", server.address, "--json")
        with started(command, env=place.environment, stdout=subprocess.PIPE) as (process, log):
            log.wait_for("waiting for")
            process.send_signal(number)
            refusal = ended(process, log)
    folder = place.repository / "m" / "3"
    words = (number.name, "Version 3 was already published", str(folder), "not waited for")
    assert_says(refusal, ExitCode(128 + number), "Interrupted", words, ("again", "remove"))
    assert (folder / "manifest.json").is_file()
    shutil.rmtree(folder)
    assert tree(place.root) == before


def test_a_killed_conversion_takes_its_process_along_and_is_cleaned_up_after(zoo: Path, place: Place) -> None:
    """Kill -9 leaves no process, no lock and no version; the next conversion of the name sweeps up."""
    with started(place.command(zoo / "linear"), env=place.environment, stdout=subprocess.PIPE) as (process, log):
        log.wait_for("loading")
        (worker,) = place.workers()
        process.kill()
        process.wait()
        wait_for_end(worker)
    assert place.workers() == []
    assert any(path.startswith(".segue/m@") for path in tree(place.repository))
    done = place.convert(zoo / "linear")
    assert done.returncode == 0, done.stderr
    assert set(tree(place.repository)) == {"m", *(f"m/1{file}" for file in PACKAGE_FILES)}
    assert list(place.temporary.iterdir()) == []


def test_a_second_conversion_of_the_name_is_refused(zoo: Path, place: Place, published: Path) -> None:
    """The name is held, the second is told by whom, other names go on, and the first ends well."""
    shutil.copytree(published, place.repository / "other" / "1")
    with started(place.command(zoo / "linear"), env=place.environment, stdout=subprocess.PIPE) as (process, log):
        log.wait_for("starting TensorFlow")
        done = place.convert(zoo / "linear", "--json")
        refusal = check_refusal(done.returncode, done.stdout, done.stderr)
        words = (f"pid {process.pid}", "'m'")
        assert_says(refusal, ExitCode.REPOSITORY, "NameLocked", words, ("Wait", "--name"))
        other = place.convert(zoo / "linear", "--name", "other")
        assert other.returncode == 0, other.stderr
        assert process.poll() is None
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(timeout=240) == 0
    assert {"m/1/manifest.json", "other/1/manifest.json"} <= set(tree(place.repository))
    assert not (place.repository / ".segue").exists()


def refused_on_tiny_disk(place: Place, folder: Path, size: str, source: Path) -> Refusal:
    """Convert in vain with a folder on a disk of that size."""
    command = tiny_disk(place, folder, size, place.command(source, "--json"))
    done = subprocess.run(
        command, env=place.environment, cwd=Path.cwd(), capture_output=True, text=True, timeout=240, check=False
    )
    return check_refusal(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("size", ["4k", "16k"])
def test_a_full_disk_under_the_repository(zoo: Path, place: Place, size: str) -> None:
    """Whether the disk is full before the conversion or because of it: the repository is as it was."""
    refusal = refused_on_tiny_disk(place, place.repository, size, zoo / "linear")
    words = ("No space is left", str(place.repository))
    assert_says(refusal, ExitCode.REPOSITORY, "RepositoryUnwritable", words, ("Free some space", "--repository"))
    assert (place.root / "left").read_text() == ""
    assert list(place.temporary.iterdir()) == []


def test_a_full_disk_under_the_temporary_files(zoo: Path, place: Place) -> None:
    """The conversion's private folder is on another disk: that one is named, and the way to another."""
    refusal = refused_on_tiny_disk(place, place.temporary, "16k", zoo / "linear")
    words = ("No space is left", str(place.temporary))
    assert_says(refusal, ExitCode.REPOSITORY, "DiskFull", words, ("Free some space", "TMPDIR"))
    assert (place.root / "left").read_text() == ""
    assert not place.repository.exists()


def test_a_damaged_version_is_not_reused(zoo: Path, place: Place, published: Path) -> None:
    """A package whose graph was changed is left alone, and the model is converted again."""
    version = place.repository / "m" / "1"
    shutil.copytree(published, version)
    graph = version / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    before = tree(version)
    done = place.convert(zoo / "linear", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["version"], outcome["reused_version"]) == (2, None)
    assert tree(version) == before


def test_damage_in_the_newest_version_is_passed_over(zoo: Path, republishing: Place) -> None:
    """A good older version is published again, above the damaged one, without converting anything."""
    before = tree(republishing.repository)
    done = republishing.convert(zoo / "linear", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["version"], outcome["reused_version"]) == (3, 1)
    assert "starting TensorFlow" not in done.stderr
    after = tree(republishing.repository)
    assert {path: after[path] for path in before} == before


@pytest.fixture
def done_before(place: Place, published: Path) -> Place:
    """A place where everything up to publishing is done, so that only the server's part is left."""
    shutil.copytree(published, place.repository / "m" / "1")
    return place


def test_a_server_of_another_repository(zoo: Path, done_before: Place, tmp_path: Path) -> None:
    """It answers but never sees the version: after the time given, that is said."""
    with serving(tmp_path / "elsewhere") as server:
        refusal = refused(done_before, zoo / "linear", "--server", server.address, "--wait", "2")
    words = ("Version 1 of 'm' is published", "has not seen it within 2 s")
    assert_says(refusal, ExitCode.NOT_DEPLOYED, "NotDeployed", words, ("same --repository", "--server"))


def test_a_server_that_ends_while_it_is_waited_for(zoo: Path, done_before: Place, tmp_path: Path) -> None:
    """Waiting ends with the server."""
    place = done_before
    before = tree(place.root)
    with serving(tmp_path / "elsewhere") as server:
        command = place.command(zoo / "linear", "--server", server.address, "--json")
        with started(command, env=place.environment, stdout=subprocess.PIPE) as (process, log):
            log.wait_for("waiting for")
            server.process.kill()
            refusal = ended(process, log)
    words = ("Version 1 is published", server.address, "stopped answering")
    assert_says(refusal, ExitCode.NOT_DEPLOYED, "NotDeployed", words, ("server's log", "again"))
    assert tree(place.root) == before


def test_no_server_where_one_was_named(zoo: Path, done_before: Place) -> None:
    """A server asked for by name must be there."""
    address = f"localhost:{free_port()}"
    refusal = refused(done_before, zoo / "linear", "--server", address)
    words = ("Version 1 is published", "no server answers", address)
    advice = (f"segue-server --repository {done_before.repository}", "--server")
    assert_says(refusal, ExitCode.NOT_DEPLOYED, "NotDeployed", words, advice)


def test_no_server_where_none_was_named(zoo: Path, done_before: Place) -> None:
    """Publishing is enough then, and how to start a server is said."""
    done = done_before.convert(zoo / "linear")
    assert done.returncode == 0, done.stderr
    assert f"No server answers at {os.environ['SEGUE_SERVER']}" in done.stdout
    assert f"segue-server --repository {done_before.repository}" in done.stdout


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of a gRPC server that has no methods."""
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("localhost:0")
        server.start()
        yield f"localhost:{port}"
        server.stop(None).wait()


def test_a_server_of_another_kind(zoo: Path, done_before: Place, stranger: str) -> None:
    """Something speaks gRPC there, but does not know models."""
    refusal = refused(done_before, zoo / "linear", "--server", stranger)
    words = ("Version 1 is published", stranger, "UNIMPLEMENTED")
    assert_says(refusal, ExitCode.NOT_DEPLOYED, "NotDeployed", words, ("--server",))


def test_a_server_that_has_that_version_already(place: Place, zoo: Path, tmp_path: Path) -> None:
    """A server of another repository, or the TensorFlow Serving that is to be replaced, is not taken for ours."""
    theirs = tmp_path / "theirs"
    write_package(theirs / "n" / "1")
    with serving(theirs) as server:
        done = place.convert(zoo / "linear", "--name", "n", "--server", server.address)
    assert done.returncode == 8
    assert "served a version 1 of 'n' before" in done.stderr
    assert "segue-server --repository" in done.stderr
