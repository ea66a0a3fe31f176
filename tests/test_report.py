"""`horovod-byz report`: first line, exit code, JSON, the page as text and in a browser, a live run."""

import html.parser
import json
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

import headless
import ledger_files
from horovod_byz.cli.main import app
from horovod_byz.ledger.history import read
from horovod_byz.ledger.report.follow import follow
from horovod_byz.ledger.report.heat import heat_map
from horovod_byz.ledger.report.overview import overview
from horovod_byz.ledger.report.page import render, steps_in_words
from horovod_byz.ledger.report.plain import plain
from ledger_files import SCENARIOS, Writer, end, lost, places
from training import unfinish

runner = CliRunner()


def report(*arguments):
    return runner.invoke(app, ["report", *map(str, arguments)])


@pytest.fixture(params=SCENARIOS)
def scenario(request, tmp_path):
    return SCENARIOS[request.param]().into(tmp_path)


def test_the_first_line_is_the_conclusion_and_the_exit_code_says_whether_it_names_somebody(scenario):
    shown, conclusion = report(scenario), overview(read(scenario)).conclusion
    assert shown.output.splitlines()[0] == conclusion.line
    assert shown.exit_code == conclusion.code
    assert len(shown.output.splitlines()) <= 30


def test_the_reason_of_the_end_stands_there_once(tmp_path):
    reason = "ValueError: " + "a long reason, " * 10
    writer = Writer().windows(20)
    writer.records.append(end(20, reason))
    shown = report(writer.into(tmp_path)).output
    assert shown.count(reason.strip()) == 1
    assert shown.count("rank 0 ended by an error at step 20") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["."], "holds no ledger.jsonl"),
        (["broken.jsonl"], "broken.jsonl, line 1 is no record of a ledger"),
        (["--bogus"], "No such option"),
        ([], "Missing argument"),
        (["trained", "--follow"], "leave out --follow"),
        (["trained"], "trained/config.toml is not the configuration of a run"),
        (["parts"], "parts holds run.json of a run, and no config.toml"),
    ],
)
def test_every_error_ends_with_1_as_2_names_a_culprit(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text("nonsense\n")
    for folder, name, text in (("trained", "config.toml", "a = 1\n"), ("parts", "run.json", "{}")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    shown = report(*arguments)
    assert shown.exit_code == 1
    assert message in shown.output
    assert "Traceback" not in shown.output


def test_names_from_other_ranks_are_text_on_the_terminal(tmp_path):
    shown = report(SCENARIOS["hostile"]().into(tmp_path)).output
    assert "[red]b[/red]?[31m" in shown
    assert "([bold]layer[/bold] {n})" in shown
    assert "\x1b" not in shown


def test_what_was_not_measured_is_not_a_number(tmp_path):
    writer = Writer(rule="Median()").windows(20)
    for account in writer.records[-1]["report"]["workers"]:
        account["mean_weight"] = None
    shown = overview(read(writer.into(tmp_path)))
    assert report(tmp_path).output.count("not measured") == 8
    assert render(shown).count("not measured") == 8
    assert plain(shown)["workers"][0]["weight"] is None


def test_a_job_of_many_workers_still_fits_a_screen(tmp_path):
    writer = Writer(workers=256, places=places("a" * 128 + "b" * 128)).evidence(9, "outvoted", 200)
    shown = report(writer.windows(20).into(tmp_path))
    assert "246 more with nothing against them" in shown.output
    assert len(shown.output.splitlines()) <= 30
    drawn = heat_map(overview(read(tmp_path)))
    assert (len(drawn.strips), drawn.hidden) == (64, 192)
    assert 200 in [strip.worker for strip in drawn.strips]


def test_json_has_its_keys(scenario):
    shown = report(scenario, "--json")
    data = json.loads(shown.output)
    assert [*data] == [
        *("format", "verdict", "exit_code", "line", "culprits", "suspects", "warnings", "hosts", "run"),
        *("workers", "phases", "ranks", "actions", "notes"),
    ]
    assert data["exit_code"] == shown.exit_code
    for culprit in data["culprits"] + data["suspects"]:
        assert [*culprit] == [
            *(
                "kind",
                "level",
                "worker",
                "rank",
                "workers",
                "ranks",
                "host",
                "local_rank",
                "device",
                "reasons",
            ),
            *("first_step", "last_step", "pattern", "period", "detail", "acted", "suggestion", "sentence"),
        ]


def test_json_tells_a_periodic_fault(tmp_path):
    (culprit,) = json.loads(report(SCENARIOS["periodic"]().into(tmp_path), "--json").output)["culprits"]
    told = (culprit["worker"], culprit["host"], culprit["pattern"], culprit["period"], culprit["first_step"])
    assert told == (3, "b", "periodic", 7, 7)
    assert culprit["device"] == "cuda:1 NVIDIA H200 GPU-b1"


class Parsed(html.parser.HTMLParser):
    """The tags, attributes and text of a page."""

    VOID = frozenset({"meta", "br", "link", "img", "rect"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID or (tag == "rect" and not self.get_starttag_text().endswith("/>")):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


class TestPage:
    def test_it_is_whole_and_loads_nothing(self, scenario):
        text = render(overview(read(scenario)))
        page = Parsed(text)
        assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {*page.tags}
        assert not {"src", "href", "action"} & {name for name, _ in page.attributes}
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert not re.search(r"https?://|//[a-z]|url\(|@import", text)
        assert "default-src 'none'" in text
        assert page.tags.count("h1") == 1

    def test_the_verdict_comes_first(self, scenario):
        shown = overview(read(scenario))
        page = Parsed(render(shown))
        body = page.text.partition("}\n\n")[2].strip() or page.text
        assert shown.conclusion.line in page.text
        assert page.tags.index("h1") < page.tags.index("h2")
        assert body

    def test_tables_have_headings_and_pictures_have_names(self, scenario):
        text = render(overview(read(scenario)))
        for table in re.findall(r"<table.*?</table>", text, re.DOTALL):
            assert '<th scope="col"' in table
            assert '<th scope="row"' in table
        for picture in re.findall(r"<svg[^>]*>", text):
            assert 'aria-hidden="true"' in picture or re.search(r'role="img" aria-label="[^"]+"', picture)

    def test_names_are_data(self, tmp_path):
        shown = overview(read(SCENARIOS["hostile"]().into(tmp_path)))
        text = render(shown)
        assert "<script" not in text
        assert "<img" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "{{ 7 * 7 }}" in text
        assert "49" not in Parsed(text).text

    def test_each_worker_has_a_row_and_proof_is_drawn_at_its_steps(self, tmp_path):
        shown = overview(read(lost([412, *range(800, 1000)]).into(tmp_path)))
        drawn = heat_map(shown)
        cells = next(strip.cells for strip in drawn.strips if strip.worker == 3)
        assert [strip.worker for strip in drawn.strips] == [*range(8)]
        assert not any(strip.cells for strip in drawn.strips if strip.worker != 3)
        assert (cells[0].title, cells[0].kind, cells[0].strength) == ("steps 407 to 417: proof", "proof", 1)
        assert cells[-1].strength == 3
        assert render(shown).count('<rect class="proof') >= 2

    def test_the_whole_host_is_said(self, tmp_path):
        text = Parsed(render(overview(read(SCENARIOS["host"]().into(tmp_path))))).text
        assert "the whole host" in text

    @pytest.mark.parametrize("scheme", [0, 1])
    def test_texts_stand_out_from_their_backs(self, tmp_path, scheme):
        text = render(overview(read(SCENARIOS["clean"]().into(tmp_path))))
        colours = dict(
            re.findall(r"--([\w-]+): (#\w{6});", re.findall(r":root \{(.*?)\}", text, re.DOTALL)[scheme])
        )
        pairs = [("ink", "back"), ("soft", "back"), ("bad", "back")]
        pairs += [(name, f"{name}-back") for name in ("bad", "warn", "good")]
        pairs += [("ink", f"{name}-back") for name in ("bad", "warn", "good")]
        for ink, back in pairs:
            assert contrast(colours[ink], colours[back]) >= 4.5, (ink, back)
        for mark in ("proof1", "proof3", "bet3", "far3", "bar"):
            assert contrast(colours[mark], colours["track"]) >= 1.8, mark

    def test_it_is_written_beside_the_report(self, tmp_path):
        shown = report(SCENARIOS["nan"]().into(tmp_path), "--html", tmp_path / "page.html")
        assert shown.exit_code == 2
        assert "worker 5 (rank 5" in (tmp_path / "page.html").read_text()
        again = report(tmp_path, "--html", tmp_path / "none" / "page.html")
        assert again.exit_code == 1
        assert "No such file or directory" in again.output


def contrast(a, b):
    """The contrast of WCAG 2, 1 to 21."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.skipif(headless.CHROMIUM is None, reason="no chromium on PATH (tools/install_chromium.sh)")
class TestInABrowser:
    """Each launch shows the page at 390 and at 1280 pixels."""

    @pytest.mark.parametrize(("name", "dark"), [("hostile", False), ("periodic", True)])
    def test_it_fits_the_width_in_both_schemes(self, tmp_path, name, dark):
        shown = overview(read(SCENARIOS[name]().into(tmp_path)))
        for seen in headless.seen(render(shown), tmp_path, dark=dark):
            assert seen["scrolls"] <= seen["width"], "the page scrolls sideways"
            assert seen["outside"] == []
            assert seen["verdict"] == shown.conclusion.line
            assert seen["title"].endswith(shown.conclusion.line)
            assert seen["top"] < 60
            assert seen["smallest"] >= 12
            assert (seen["loaded"], seen["scripts"], seen["images"], seen["alerted"]) == (0, 0, 0, 0)
            assert len(seen["bars"]) == 8
            assert min(seen["bars"]) > seen["width"] / 2
            assert seen["back"] == ("rgb(17, 20, 24)" if dark else "rgb(255, 255, 255)")


def test_steps_in_words():
    assert steps_in_words([]) == ""
    assert steps_in_words([3, 4, 5, 9]) == "3 to 5, 9"


class TestFollow:
    """A run that grows while it is shown."""

    @staticmethod
    def console(tmp_path):
        return Console(file=(tmp_path / "shown").open("w"), width=200)

    def follow(self, folder, tmp_path, *changes):
        """Follows a folder; each look is followed by the next change, and the last one by Ctrl-C."""
        left = list(changes)

        def sleep(seconds):
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        console = self.console(tmp_path)
        follow(folder, console, sleep)
        console.file.close()
        return (tmp_path / "shown").read_text().splitlines(), left

    def test_it_waits_for_the_file_and_ends_with_the_run(self, tmp_path):
        folder = tmp_path / "run"
        lines, left = self.follow(
            folder,
            tmp_path,
            lambda: Writer().into(folder),
            lambda: Writer().windows(20).into(folder),
            lambda: Writer().evidence(7, "outvoted", 3).windows(40).into(folder),
            lambda: Writer().evidence(7, "outvoted", 3).windows(40).end(40).into(folder),
            lambda: pytest.fail("it looked again after the run's end"),
        )
        assert [line.split(" ")[0] for line in lines if line] == ["no", "no", "worker"]
        assert len(left) == 1

    def test_ctrl_c_ends_it(self, tmp_path):
        lines, _ = self.follow(Writer().windows(20).into(tmp_path / "run"), tmp_path)
        assert lines[0].startswith("no worker is proven")

    def test_an_error_of_a_rank_ends_it(self, tmp_path):
        folder = Writer().windows(20).into(tmp_path / "run")
        failed = {2: end(20, "LateRanksError: rank 5", [5])}
        lines, left = self.follow(folder, tmp_path, lambda: ledger_files.rank_ends(folder, failed))
        assert lines[-1].startswith("worker 5 (rank 5")
        assert not left

    def test_a_terminal_gets_a_display(self, tmp_path):
        console = Console(file=(tmp_path / "shown").open("w"), width=120, force_terminal=True)
        follow(SCENARIOS["nan"]().into(tmp_path / "run"), console)
        console.file.close()
        assert "last written" in (tmp_path / "shown").read_text()

    def test_json_after_a_live_run_is_json_alone(self, tmp_path):
        shown = report(SCENARIOS["nan"]().into(tmp_path), "--follow", "--json")
        assert json.loads(shown.stdout)["exit_code"] == 2
        assert "worker 5 (rank 5" in shown.stderr

    def test_the_command_follows_and_then_reports(self, tmp_path):
        shown = report(SCENARIOS["nan"]().into(tmp_path), "--follow")
        assert shown.exit_code == 2
        assert shown.output.count("worker 5 (rank 5") == 2


class TestRunFolders:
    """Folders of `horovod-byz train`."""

    QUICK = (
        *("--steps", "4", "--workers", "9", "--batch", "4", "--model", "mlp:width=4"),
        *("--evaluate-every", "2", "--set", "redundancy.r=3", "--rule", "detox:inner=mean,outer=mean"),
    )

    def train(self, folder, *options):
        done = runner.invoke(app, ["train", *self.QUICK, *options, "--out", str(folder)])
        assert done.exit_code == 0, done.output

    @pytest.fixture
    def run(self, tmp_path):
        """0.1.0: lost votes stood in verdicts.json alone, and its report showed zeros for everybody."""
        script = tmp_path / "faults.toml"
        attack = '{name = "bit-flip", bits = [3], coordinates = 1}'
        script.write_text(f"[[script]]\nsteps = [1, 3]\nworkers = [3]\nattack = {attack}\n")
        done = runner.invoke(app, ["train", str(script), *self.QUICK, "--out", str(tmp_path / "run")])
        assert done.exit_code == 0, done.output
        return tmp_path / "run"

    def test_a_flipped_bit_is_named_in_the_first_line(self, run):
        shown = report(run)
        first = shown.output.splitlines()[0]
        assert re.fullmatch(r"worker 3.*: lost 2 votes.*last at step 2.*; suggest: .+", first), first
        assert shown.exit_code == 2
        assert "never diverged" in shown.output
        assert "evaluations" in shown.output

    def test_json_and_page_have_the_evaluations_too(self, run, tmp_path):
        shown = report(run, "--json", "--html", tmp_path / "page.html")
        data = json.loads(shown.output)
        assert data["culprits"][0]["worker"] == 3
        assert [record["step"] for record in data["training"]["evaluations"]] == [0, 2, 4]
        page = Parsed((tmp_path / "page.html").read_text())
        assert "Training" in page.text
        assert "outvoted" in page.text

    def test_an_unfinished_run_is_reported_from_its_checkpoint(self, run):
        unfinish(run)
        assert report(run).output.startswith("worker 3 (rank 0, host")
        (run / "ledger.jsonl").unlink()  # 0.2.0 wrote none
        shown = report(run)
        assert shown.output.startswith("worker 3: lost 2 votes")
        assert "not complete: continue it with --resume" in shown.output

        (run / "checkpoint.pt").write_bytes(b"PK")
        damaged = report(run)
        assert damaged.output.startswith("no step is recorded yet")
        assert "The accounts of checkpoint.pt cannot be read" in damaged.output
        assert "evaluations" in damaged.output

    def test_a_clean_run_is_clean(self, tmp_path):
        self.train(tmp_path / "run")
        shown = report(tmp_path / "run")
        assert shown.exit_code == 0
        assert shown.output.startswith("no worker is proven or suspected wrong in 4 steps of 9 workers")

    def test_an_attacker_under_a_median_has_no_weight_by_assumption(self, tmp_path):
        options = [
            "--rule",
            "median",
            "--set",
            "redundancy.r=1",
            "--attack",
            "omniscient",
            "--byzantine",
            "1",
        ]
        self.train(tmp_path / "run", *options)
        # In the operator's table, and in that of the verdicts, which knows who is Byzantine.
        assert report(tmp_path / "run").output.count("not measured") == 2 * 9

    def test_a_ledger_in_the_folder_comes_first(self, run):
        lost([412]).into(run)
        shown = report(run)
        assert shown.output.startswith("worker 3 (rank 3, host b, GPU 1): lost 1 vote, at step 412")
        assert "evaluations" in shown.output
