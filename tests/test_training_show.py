"""What a run shows: progress, report, figure, the demo's sentence, the command line."""

import importlib.metadata
import io
import json
import re
from itertools import pairwise

import matplotlib.image
import pytest
from rich.console import Console
from typer.testing import CliRunner

from horovod_byz.cli.main import app
from horovod_byz.reproduction import demo
from horovod_byz.reproduction.demo import Result, sentence
from horovod_byz.training import launcher, progress
from horovod_byz.training.plots import Curve, draw_curves, spread
from horovod_byz.training.report import show
from horovod_byz.training.runs import RunError, RunFolder
from training import as_of_0_2, unfinish

QUICK = ["--steps", "4", "--workers", "5", "--batch", "4", "--model", "mlp:width=4", "--evaluate-every", "2"]
runner = CliRunner()


def train(*arguments):
    return runner.invoke(app, ["train", *QUICK, *map(str, arguments)])


def test_resume_alone_asks_which_run(monkeypatch, tmp_path):
    """0.1.0: it started a new run of the default configuration."""
    monkeypatch.chdir(tmp_path)
    refused = runner.invoke(app, ["train", "--resume"])
    assert refused.exit_code == 2
    assert "name its folder with --out" in refused.output
    assert list(tmp_path.iterdir()) == []


def test_train_report_and_resume_from_the_command_line(tmp_path):
    out = tmp_path / "run"
    first = train("--byzantine", 1, "--attack", "gaussian:std=10", "--rule", "krum", "--out", out)
    assert first.exit_code == 0, first.output
    assert "rule krum:f=1, attack gaussian:std=10 by 1 of 5" in first.output
    assert train("--out", out).exit_code == 1
    resumed = runner.invoke(app, ["train", "--resume", "--out", str(out)])
    assert resumed.exit_code == 0, resumed.output
    shown = runner.invoke(app, ["report", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "never diverged" in shown.output


def test_the_version_is_printed():
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"horovod-byz {importlib.metadata.version('horovod-byz')}\n"


def test_a_finished_run_gets_more_steps_from_the_command_line(tmp_path):
    assert train("--out", tmp_path / "run").exit_code == 0
    longer = runner.invoke(app, ["train", "--resume", "--steps", "7", "--out", str(tmp_path / "run")])
    assert longer.exit_code == 0, longer.output
    assert "going on from step 4" in longer.output
    assert train("--steps", 7, "--out", tmp_path / "long").exit_code == 0
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("run", "long")]
    assert metrics[0] == metrics[1]


def test_a_toml_file_and_options_mean_the_same(tmp_path):
    (tmp_path / "run.toml").write_text(
        'steps = 4\nworkers = 5\nevaluate_every = 2\nmodel = "mlp:width=4"\n'
        '[data]\nname = "digits"\nbatch = 4\n'
    )
    by_file = [
        "train",
        str(tmp_path / "run.toml"),
        "--set",
        "optimizer.lr=0.2",
        "--out",
        str(tmp_path / "one"),
    ]
    assert runner.invoke(app, by_file).exit_code == 0
    assert train("--data", "digits", "--lr", 0.2, "--out", tmp_path / "two").exit_code == 0
    assert RunFolder(tmp_path / "one").config == RunFolder(tmp_path / "two").config
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two")]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--rule", "krun"], 2, "did you mean 'krum'"),
        (["--set", "optimizer.momentun=1"], 2, "did you mean 'momentum'"),
        (["--set", "nonsense"], 2, "not of the form key=value"),
        (["--batch", "2000"], 2, "use a smaller batch"),
        (["--model", "lenet"], 2, "does not fit images of 8x8 pixels"),
    ],
)
def test_mistakes_end_with_one_message(tmp_path, arguments, code, message):
    result = train(*arguments, "--out", tmp_path / "run")
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.fixture
def damaged(tmp_path):
    """A run folder with one checkpoint, damaged."""
    train("--out", tmp_path / "run")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK")
    unfinish(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--resume", "--out", "run"], 1, "run/checkpoint.pt has no digest: it was cut short"),
        (["--resume", "--overwrite", "--out", "run"], 2, "give one of them"),
        (["--resume", "--seed", "3", "--out", "run"], 1, "only steps may change"),
        (["--out", "run"], 1, "already holds a run: continue it with --resume"),
        (["--out", "run/config.toml"], 1, "is a file, not a folder"),
        (["--out", "run/config.toml/new"], 1, "cannot be used as a run folder"),
        (["--ranks", "3", "--workers", "2", "--out", "new"], 2, "2 workers on 3 ranks leave a rank without"),
        (["--ranks", "2", "--out", "run"], 1, "already holds a run"),
        (["missing.toml"], 2, "cannot read missing.toml"),
        (["run"], 2, "cannot read run (Is a directory)"),
        (["binary.toml"], 2, "binary.toml is not TOML"),
        (["--data", "mnist", "--data-dir", ".", "--out", "new"], 1, "is damaged (not a uint8 IDX file"),
    ],
)
def test_what_an_operator_meets_ends_with_one_sentence(damaged, monkeypatch, arguments, code, message):
    monkeypatch.chdir(damaged.parent)
    monkeypatch.setattr(launcher, "run_ranks", lambda *arguments: pytest.fail("ranks were started"))
    (damaged.parent / "binary.toml").write_bytes(b"\xff\xfe")
    raw = damaged.parent / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"")
    options = ["--steps", "4", "--workers", "5"] if "--resume" not in arguments else []
    result = runner.invoke(app, ["train", *options, *arguments])
    assert result.exit_code == code, result.output
    assert message in result.output
    assert result.output.count("horovod-byz: ") == 1
    assert "Traceback" not in result.output
    assert not (damaged.parent / "new").exists()


def test_an_error_of_the_system_is_reported_in_one_sentence_too(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("horovod_byz.training.report.load", refuse)
    (tmp_path / "config.toml").touch()
    result = runner.invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert f"horovod-byz: {tmp_path}: Permission denied: check the name, its rights" in result.output


def test_a_missing_data_set_ends_with_one_message(tmp_path, monkeypatch):
    monkeypatch.delenv("HOROVOD_BYZ_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("horovod_byz.training.files.download", lambda name, root: None)
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["train", "--data", "mnist", "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "Looked in" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["recommend", "--n", "20", "--f", "6"], "mean-around-median: it tolerates 6 Byzantine values"),
        (["detox", "--p", "45", "--q", "5", "--r", "3", "--runs", "0"], "0.433404"),
        (["detox", "--n", "45", "--f", "5", "--runs", "0"], "not applicable: there are 15 votes"),
        (["resilience", "--rule", "krum", "--n", "20", "--f", "6"], "eta = 14.4222"),
        (["resilience", "--rule", "krum", "--n", "25", "--f", "12"], "not applicable"),
    ],
)
def test_theory_calculates_from_the_command_line(arguments, expected, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = runner.invoke(app, ["theory", *arguments])
    assert result.exit_code == 0, result.output
    assert expected in result.output


def test_bench_passes_its_options_on():
    result = runner.invoke(app, ["bench", "-n", "3", "-d", "10", "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert [cell["n"] for cell in json.loads(result.output)["cells"]] == [3]


def test_report_wants_a_run(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        show(tmp_path)


def table_of(run):
    console = Console(file=io.StringIO(), width=120)
    show(run, console)
    return console.file.getvalue()


def test_report_names_the_workers_that_lost_votes(tmp_path):
    rule = ["--rule", "detox:inner=mean,outer=mean", "--set", "redundancy.r=3"]
    attack = ["--byzantine", 1, "--attack", "omniscient", "--workers", 9]
    trained = train(*rule, *attack, "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    verdicts = RunFolder(tmp_path / "run").verdicts
    (guilty,) = [account["worker"] for account in verdicts["workers"] if account["byzantine_steps"]]
    assert verdicts["workers"][guilty]["outvoted_steps"] == 4
    table = table_of(tmp_path / "run")
    assert "outvoted" in table
    assert "group" in table
    assert f"without a majority): worker {guilty} in 4 steps." in table
    assert verdicts["workers"][guilty]["last_suspect_step"] == 3


def test_report_leaves_out_what_the_run_has_not(tmp_path):
    train("--out", tmp_path / "run")
    table = table_of(tmp_path / "run")
    assert "outvoted" not in table
    assert "No worker's row stood out in any step." in table


def test_report_reads_runs_that_counted_steps_from_1(tmp_path):
    train("--out", tmp_path / "run")
    as_of_0_2(tmp_path / "run")
    for name, change in (("summary", {"diverged_at": 3}), ("verdicts", {})):
        path = tmp_path / "run" / f"{name}.json"
        data = json.loads(path.read_text()) | change
        assert data.pop("first_step") == 0
        if name == "verdicts":
            data["workers"][2] |= {"last_suspect_step": 2, "far_steps": 1}
            del data["workers"][2]["outvoted_steps"]
        path.write_text(json.dumps(data))
    folder = RunFolder(tmp_path / "run")
    assert folder.summary["diverged_at"] == 2
    assert folder.verdicts["workers"][2]["last_suspect_step"] == 1
    table = table_of(tmp_path / "run")
    assert "not finite from step 2 on" in table
    assert "Far from the aggregate (honest rows may be, too): worker 2 in 1 steps." in table


def test_report_of_a_run_without_evaluations_says_so(tmp_path):
    train("--out", tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    table = table_of(tmp_path / "run")
    assert "It holds no evaluation yet." in table
    assert "continue it with --resume" in table


def test_report_of_an_unfinished_run_says_so(tmp_path):
    train("--out", tmp_path / "run")
    unfinish(tmp_path / "run")
    console = Console(file=io.StringIO(), width=100)
    show(tmp_path / "run", console)
    assert "not complete: continue it with --resume" in console.file.getvalue()


def test_events_come_back_as_progress():
    class Recorder(progress.Silent):
        def __init__(self):
            self.seen = []

        def start(self, title, total, done):
            self.seen.append((title, total, done))

        def update(self, step, values):
            self.seen.append((step, values))

        def note(self, text):
            self.seen.append(text)

    recorder = Recorder()
    for line in (
        "[0]<stdout>:"
        + progress.EVENT
        + json.dumps({"kind": "start", "title": "run", "total": 9, "done": 1}),
        progress.EVENT + json.dumps({"kind": "update", "step": 2, "values": {"loss": None}}),
        progress.EVENT + json.dumps({"kind": "note", "text": "hello"}),
        progress.EVENT + "{broken",
        "other output",
    ):
        event = progress.parse_event(line)
        if event is not None:
            progress.replay(event, recorder)
    assert recorder.seen == [("run", 9, 1), (2, {"loss": None}), "hello"]


def test_lines_show_loss_accuracy_and_speed():
    stream = io.StringIO()
    lines = progress.Lines(stream, seconds=0)
    lines.start("run", 10, 0)
    lines.update(5, {"loss": 0.25, "accuracy": 0.5, "steps_per_second": 20.0})
    assert stream.getvalue().splitlines()[1] == (
        "[##########..........]     5/10  loss    0.25  accuracy  50.0 %   20.0 steps/s"
    )


def test_bars_run():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with progress.Bars(console) as bars:
        bars.start("run", 10, 0)
        bars.update(10, {"loss": None, "accuracy": 1.0, "steps_per_second": 3.0})
        bars.note("done")
    assert "done" in console.file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 100, 120, 122, 160])
@pytest.mark.parametrize("values", [(0.25, 0.5, 12.5), (1.2345e30, 1.0, 1234.5), (None, None, 0.1)])
def test_a_bar_of_any_width_keeps_steps_speed_and_the_time_left(width, values):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with progress.Bars(console) as bars:
        bars.start("fashion-mnist-cnn-xie2018-mean-around-median-omniscient-seed0", 50000, 0)
        bars.update(10000, {})
        bars.update(12345, dict(zip(("loss", "accuracy", "steps_per_second"), values, strict=True)))
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue()))
    shown = [line for line in lines if line.strip()][-1]
    assert len(shown) <= width
    assert re.search(rf"12345/50000.* {values[2]:.1f} steps/s +(\d+:)?\d\d:\d\d$", shown), shown


def test_the_launcher_prints_each_error_of_its_ranks_once():
    errors = ["it is damaged", "rank 1: it is damaged", "it is damaged", "rank 0 is late"]
    assert launcher._joined(errors) == "it is damaged\nrank 0 is late"


def test_the_figure_is_drawn_from_run_folders(tmp_path):
    for seed in (0, 1):
        assert train("--seed", seed, "--out", tmp_path / str(seed)).exit_code == 0
    curves = [Curve("no attack", tmp_path / "0", reference=True), Curve("Mean", tmp_path / "1")]
    draw_curves(curves, tmp_path / "one.png", title="title", subtitle="subtitle")
    draw_curves(curves, tmp_path / "two.png", title="title", subtitle="subtitle")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert matplotlib.image.imread(tmp_path / "one.png").shape[1] == 1350
    with pytest.raises(FileNotFoundError, match="'gone' has no metrics"):
        draw_curves([Curve("gone", tmp_path / "gone")], tmp_path / "three.png", title="")


@pytest.mark.parametrize(
    "values", [[50.0] * 8, [0.0, 0.1, 99.9, 100.0], [10.0, 90.0], [float("nan"), 5.0], []]
)
def test_labels_are_spread_apart_in_order(values):
    places = spread(values, gap=5, low=2, high=98)
    assert all(2 - 1e-9 <= place <= 98 + 1e-9 for place in places)
    ordered = sorted(places)
    assert all(b - a >= 5 - 1e-9 for a, b in pairwise(ordered))
    if values == [10.0, 90.0]:
        assert places == values


def test_the_sentence_follows_from_the_numbers():
    def result(label, accuracy):
        return Result(label, accuracy, None, (None, None), 1.0)

    text = sentence([result("no attack", 92.0), result("A", 10.0), result("B", 60.0), result("C", 91.0)])
    assert text == (
        "Without attack, Mean reached 92.0 % accuracy. With 6 of 20 workers Byzantine, A (10.0 %) ended near "
        "guessing (10 %); B (60.0 %) was held back; C (91.0 %) trained on to within 5 points of the run "
        "without attack."
    )
    assert "guessing" not in sentence([result("no attack", 92.0), result("C", 91.0)])


def test_the_demo_runs_in_one_process_without_horovod(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "horovod_missing", lambda: "Horovod cannot be imported (test)")
    assert demo.main(["--data", "digits", "--steps", "4", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "training in one process instead of 2 Horovod ranks" in output
    assert all(label in output for label in demo.RULES)
    assert (tmp_path / "curves.png").stat().st_size > 10_000
